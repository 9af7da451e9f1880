#include "embgeom/knn/equal_rows.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "embgeom/base/rows.hpp"

namespace embgeom {
namespace {

constexpr std::size_t queries_per_task = 64;
constexpr float no_similarity = std::numeric_limits<float>::quiet_NaN();

// The first of equal queries, by their positions in the set.
std::vector<std::int64_t> first_equal_queries(const KnnQuestion& question, const Groups& base,
                                              const std::vector<double>& squared_norms, int threads,
                                              Monitor& monitor) {
    if (!question.queries_are_base_rows)
        return first_equal_rows(question.queries.matrix, squared_norms, threads, monitor);
    std::vector<std::int64_t> seen(base.count(), -1), first(question.queries.size);
    for (std::size_t i = 0; i < first.size(); ++i) {
        std::int64_t& met = seen[base.of(question.queries.row_number(i))];
        if (met < 0) met = static_cast<std::int64_t>(i);
        first[i] = met;
    }
    return first;
}

}  // namespace

Groups::Groups(const std::vector<std::int64_t>& first_equal)
    : group_(first_equal.size()), members_(first_equal.size()) {
    for (std::size_t i = 0; i < first_equal.size(); ++i) {
        const auto first = static_cast<std::size_t>(first_equal[i]);
        group_[i] = first == i ? static_cast<std::uint32_t>(firsts_.size()) : group_[first];
        if (first == i) firsts_.push_back(first_equal[i]);
    }
    starts_.assign(count() + 1, 0);
    for (const std::uint32_t group : group_) ++starts_[group + 1];
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
    std::vector<std::uint32_t> next(starts_.begin(), starts_.end() - 1);
    for (std::size_t i = 0; i < group_.size(); ++i)
        members_[next[group_[i]]++] = static_cast<std::int32_t>(i);
}

DistinctQuestion::DistinctQuestion(const KnnQuestion& question,
                                   const std::vector<double>& query_squared_norms,
                                   const std::vector<double>& base_squared_norms, int threads,
                                   Monitor& monitor)
    : question_(question),
      base_(first_equal_rows(question.base.matrix, base_squared_norms, threads, monitor)),
      queries_(first_equal_queries(question, base_, query_squared_norms, threads, monitor)),
      distinct_(question) {
    if (!base_.trivial()) distinct_.base = RowSet::selected(question.base.matrix, base_.firsts());
    if (question.self_join) {
        distinct_.queries = distinct_.base;
    } else if (!queries_.trivial() || (question.queries_are_base_rows && !base_.trivial())) {
        for (const std::int64_t i : queries_.firsts()) {
            const std::size_t row = question.queries.row_number(static_cast<std::size_t>(i));
            asked_.push_back(question.queries_are_base_rows ? base_.firsts()[base_.of(row)]
                                                            : static_cast<std::int64_t>(row));
        }
        distinct_.queries = RowSet::selected(question.queries.matrix, asked_);
    }
    const bool without_own = question.queries_are_base_rows && question.exclude_self;
    distinct_.k = std::min(question.k, base_.count() - (without_own ? 1 : 0));
}

Buffers DistinctQuestion::buffers(MatrixView<std::int32_t> indices, MatrixView<float> similarities) const {
    if (queries_.trivial()) return {.rows = indices, .similarities = similarities};
    return {.rows = indices, .similarities = similarities, .places = queries_.firsts()};
}

struct DistinctQuestion::Scratch {
    struct Entry {
        float similarity;
        std::int32_t row;
    };

    std::vector<Entry> groups, rows;
    std::vector<Candidates::Scored> tied;
    std::size_t wanted;
};

void DistinctQuestion::expand(const Scores& scores, const Buffers& buffers, int threads,
                              Monitor& monitor) const {
    if (base_.trivial() && queries_.trivial()) return;
    std::vector<Scratch> scratch(static_cast<std::size_t>(threads));
    const auto for_ranges = [&](std::size_t items, auto body) {
        parallel_ranges("place equal rows", items, queries_per_task, threads, monitor,
                        [&](std::size_t begin, std::size_t end, const Worker& worker) {
                            for (std::size_t i = begin; i < end; ++i)
                                body(i, scratch[static_cast<std::size_t>(worker.id())]);
                        });
    };
    if (!base_.trivial()) {
        for_ranges(queries_.count(),
                   [&](std::size_t query, Scratch& space) { expand_list(query, scores, buffers, space); });
    }
    const auto is_first = [&](std::size_t i) { return buffers.place(queries_.of(i)) == i; };
    for_ranges(question_.queries.size, [&](std::size_t i, Scratch&) {
        if (!is_first(i)) copy_list(i, queries_.of(i), scores, buffers);
    });
    for_ranges(queries_.count(), [&](std::size_t query, Scratch&) {
        if (finds_itself(query, scores)) copy_list(buffers.place(query), query, scores, buffers);
    });
}

// Whether a query's list, before it is copied, holds one place more, for the query itself.
bool DistinctQuestion::finds_itself(std::size_t query, const Scores& scores) const {
    if (!question_.queries_are_base_rows || !question_.exclude_self || !scores.query_counts(query))
        return false;
    return base_.size(base_.of(distinct_.queries.row_number(query))) > 1;
}

void DistinctQuestion::expand_list(std::size_t query, const Scores& scores, const Buffers& buffers,
                                   Scratch& scratch) const {
    auto& [groups, rows, tied, wanted] = scratch;
    std::int32_t* list = buffers.rows_of(query);
    float* similarities = buffers.similarities_of(query);
    groups.clear();
    for (std::size_t c = 0; c < distinct_.k && list[c] >= 0; ++c)
        groups.push_back({similarities[c], list[c]});
    const bool with_itself = finds_itself(query, scores);
    if (with_itself) {
        const std::size_t own = base_.of(distinct_.queries.row_number(query));
        // Adding 0 turns -0.0 into 0.0, as in all lists.
        const float similarity = scores.similarity(scores.exact(query, own)) + 0.0F;
        const auto place = std::partition_point(
            groups.begin(), groups.end(), [&](const auto& entry) { return entry.similarity > similarity; });
        groups.insert(place, {similarity, static_cast<std::int32_t>(own)});
    }
    wanted = question_.k + (with_itself ? 1 : 0);
    rows.clear();
    for (std::size_t begin = 0, end = 0; begin < groups.size() && rows.size() < wanted; begin = end) {
        while (end < groups.size() && groups[end].similarity == groups[begin].similarity) ++end;
        append_ties(query, begin, end, scores, scratch);
    }
    for (std::size_t c = 0; c < wanted; ++c) {
        list[c] = c < rows.size() ? rows[c].row : -1;
        similarities[c] = c < rows.size() ? rows[c].similarity : no_similarity;
    }
}

// Appends the rows of the groups [begin, end), which have one similarity: only their exact scores tell
// whether their rows go by row number.
void DistinctQuestion::append_ties(std::size_t query, std::size_t begin, std::size_t end,
                                   const Scores& scores, Scratch& scratch) const {
    auto& [groups, rows, tied, wanted] = scratch;
    const float similarity = groups[begin].similarity;
    const auto group_at = [&](std::size_t c) { return static_cast<std::size_t>(groups[c].row); };
    const bool in_order =
        end == begin + 1 ||
        std::all_of(groups.begin() + static_cast<std::ptrdiff_t>(begin),
                    groups.begin() + static_cast<std::ptrdiff_t>(end),
                    [&](const auto& entry) { return base_.size(static_cast<std::size_t>(entry.row)) == 1; });
    const std::size_t room = wanted - rows.size();
    tied.clear();
    for (std::size_t c = begin; c < end; ++c) {
        const double score = in_order ? 0.0 : scores.exact(query, group_at(c));
        const auto members = base_.members(group_at(c));
        for (const std::int32_t row : members.first(std::min(members.size(), room)))
            tied.push_back({score, row});
    }
    if (!in_order) std::sort(tied.begin(), tied.end());
    for (std::size_t c = 0; c < std::min(room, tied.size()); ++c) rows.push_back({similarity, tied[c].row});
}

// Gives query i of the question itself the list of the group it belongs to, without the query where it is in
// it. Both may be the same list.
void DistinctQuestion::copy_list(std::size_t i, std::size_t query, const Scores& scores,
                                 const Buffers& buffers) const {
    const std::int32_t* from = buffers.rows_of(query);
    const float* from_similarities = buffers.similarities_of(query);
    std::int32_t* to = buffers.rows.row(i);
    float* to_similarities = buffers.similarities.row(i);
    std::size_t own = question_.k;
    if (finds_itself(query, scores)) {
        const auto row = static_cast<std::int32_t>(question_.queries.row_number(i));
        own = static_cast<std::size_t>(std::find(from, from + question_.k, row) - from);
    }
    if (from != to) {
        std::copy(from, from + own, to);
        std::copy(from_similarities, from_similarities + own, to_similarities);
    }
    if (own == question_.k) return;
    std::copy(from + own + 1, from + question_.k + 1, to + own);
    std::copy(from_similarities + own + 1, from_similarities + question_.k + 1, to_similarities + own);
}

}  // namespace embgeom
