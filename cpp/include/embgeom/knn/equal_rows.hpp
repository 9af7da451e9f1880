#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/knn/candidates.hpp"
#include "embgeom/knn/knn.hpp"
#include "embgeom/knn/scores.hpp"

namespace embgeom {

// Rows dealt into groups of equal ones, numbered in the order of their first rows.
class Groups {
  public:
    explicit Groups(const std::vector<std::int64_t>& first_equal);

    std::size_t count() const { return firsts_.size(); }
    bool trivial() const { return count() == group_.size(); }
    std::span<const std::int64_t> firsts() const { return firsts_; }
    std::size_t of(std::size_t row) const { return group_[row]; }
    std::size_t size(std::size_t group) const { return starts_[group + 1] - starts_[group]; }

    // In ascending order.
    std::span<const std::int32_t> members(std::size_t group) const {
        return {members_.data() + starts_[group], size(group)};
    }

  private:
    std::vector<std::int64_t> firsts_;
    std::vector<std::uint32_t> group_, starts_;
    std::vector<std::int32_t> members_;
};

// A question in which equal rows stand once, and how its answer becomes that of the question itself.
//
// Equal rows have the same score with every row, bit for bit, so of each group of base rows only the first is
// searched, and of each group of queries only the first is asked for. The k nearest rows lie in the k nearest
// groups, groups of equal scores being ordered by their first rows: the first row of each nearer group is
// nearer. A query's own group is no neighbor in the search if a query is none of itself; it is put in
// afterwards, and the query left out by its row number.
class DistinctQuestion {
  public:
    DistinctQuestion(const KnnQuestion& question, const std::vector<double>& query_squared_norms,
                     const std::vector<double>& base_squared_norms, int threads, Monitor& monitor);

    // Its k may be 0: then all base rows are equal, and nothing has to be searched.
    const KnnQuestion& question() const { return distinct_; }

    // Each of its queries has the buffers of the first of the queries that it stands for.
    Buffers buffers(MatrixView<std::int32_t> indices, MatrixView<float> similarities) const;

    // Turns lists of groups, in those buffers, into lists of rows for all queries. Cost: m k, and d for each
    // group whose similarity is that of another, larger than one row.
    void expand(const Scores& scores, const Buffers& buffers, int threads, Monitor& monitor) const;

  private:
    struct Scratch;

    bool finds_itself(std::size_t query, const Scores& scores) const;
    void expand_list(std::size_t query, const Scores& scores, const Buffers& buffers, Scratch& scratch) const;
    void append_ties(std::size_t query, std::size_t begin, std::size_t end, const Scores& scores,
                     Scratch& scratch) const;
    void copy_list(std::size_t i, std::size_t query, const Scores& scores, const Buffers& buffers) const;

    const KnnQuestion& question_;
    Groups base_, queries_;            // of base rows, and of positions in the set of queries
    std::vector<std::int64_t> asked_;  // rows of the query matrix, where they are not `firsts` of a group
    KnnQuestion distinct_;
};

}  // namespace embgeom
