#include "embgeom/knn.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "embgeom/candidates.hpp"
#include "embgeom/rows.hpp"
#include "embgeom/tiles.hpp"

namespace embgeom {
namespace {

constexpr std::size_t no_row = std::numeric_limits<std::size_t>::max();
constexpr std::size_t spare_bytes = std::size_t{128} << 20U;
constexpr std::size_t entry_bytes = sizeof(std::int32_t) + sizeof(float);

struct Scored {
    double score;
    std::int32_t row;

    // The order of neighbors: nearer first, then the smaller row number.
    friend bool operator<(const Scored& a, const Scored& b) {
        return a.score != b.score ? a.score > b.score : a.row < b.row;
    }
};

// How many candidates outlive a cut: some beyond k, so that the k-th exact score lies above the limit
// for most queries.
std::size_t kept_candidates(std::size_t k, std::size_t capacity) {
    return k + (capacity - k + 2) / 3;
}

class Search {
  public:
    Search(const KnnQuestion& question, int threads, Monitor& monitor, MatrixView<std::int32_t> indices,
           MatrixView<float> similarities)
        : question_(question),
          base_(RowSet::all(question.base)),
          threads_(threads),
          monitor_(monitor),
          indices_(indices),
          similarities_(similarities),
          base_squared_norms_(squared_norms(question.base, "x", threads, monitor)),
          query_squared_norms_(norms_of_queries()),
          scores_(question.metric, question.queries, base_, query_squared_norms_, base_squared_norms_),
          tiles_(question.queries, base_, query_squared_norms_, base_squared_norms_, threads),
          candidates_(indices, similarities, kept_candidates(question.k, indices.cols)) {}

    void run() {
        collect();
        const std::vector<std::size_t> open = order();
        if (!open.empty()) widen(open);
    }

  private:
    bool is_self_join() const {
        return question_.queries_are_base_rows && question_.queries.selection == nullptr;
    }

    // The base row that query i is and must not find; no_row where there is none.
    std::size_t self(std::size_t i) const {
        return question_.queries_are_base_rows && question_.exclude_self ? question_.queries.row_number(i)
                                                                         : no_row;
    }

    std::vector<double> norms_of_queries() const {
        if (!question_.queries_are_base_rows)
            return squared_norms(question_.queries.matrix, "queries", threads_, monitor_);
        if (is_self_join()) return base_squared_norms_;
        std::vector<double> norms(question_.queries.size);
        for (std::size_t i = 0; i < norms.size(); ++i) {
            norms[i] = base_squared_norms_[question_.queries.row_number(i)];
        }
        return norms;
    }

    struct Place {
        std::size_t query_block, base_block;
    };

    // Where the tile of a task lies: row by row in a rectangle; in a triangle, the first row of tiles
    // together with the last makes as many as the second together with the last but one, and so on.
    Place place(std::size_t task) const {
        const std::size_t blocks = tiles_.base_blocks();
        if (!is_self_join()) return {task / blocks, task % blocks};
        const std::size_t row = task / (blocks + 1);
        const std::size_t tile = task % (blocks + 1);
        const std::size_t tiles_of_row = blocks - row;
        if (tile < tiles_of_row) return {row, row + tile};
        return {tiles_of_row - 1, tile - 1};
    }

    // Visits every tile once and reduces it into the candidates of its queries; in a self-join, tiles
    // below the diagonal are the transposes of those above, which are reduced a second time the other
    // way round.
    void collect() {
        for (std::size_t i = 0; i < question_.queries.size; ++i) {
            if (!scores_.has_neighbors(i)) candidates_.close(i);
        }
        const std::size_t blocks = tiles_.query_blocks();
        const std::size_t tiles = is_self_join() ? blocks * (blocks + 1) / 2 : blocks * tiles_.base_blocks();
        // Two tiles of one row or column of the grid may be reduced at the same time by different workers.
        const auto locks = std::make_unique<std::mutex[]>(blocks);
        std::vector<std::vector<Candidates::Entry>> scratch(static_cast<std::size_t>(threads_));
        parallel_for("multiply", tiles, threads_, monitor_, [&](std::size_t task, const Worker& worker) {
            const auto [query_block, base_block] = place(task);
            const Tile tile = tiles_.compute(query_block, base_block, worker);
            auto& space = scratch[static_cast<std::size_t>(worker.id())];
            {
                const std::lock_guard lock(locks[query_block]);
                reduce_into_queries(tile, space);
            }
            if (is_self_join() && query_block != base_block) {
                const std::lock_guard lock(locks[base_block]);
                reduce_into_base_rows(tile, space);
            }
        });
    }

    float bound(std::size_t i, std::size_t j, float product) const {
        return upper_bound(scores_.query_factor[i], scores_.base_factor[j], scores_.base_offset[j], product,
                           scores_.product_error);
    }

    // Calls visit(j, bound) for each base row of the tile whose bound for query i is above limit().
    template <class Limit, class Visit>
    void visit_above(const Tile& tile, std::size_t row_of_tile, std::size_t i, Limit limit,
                     Visit visit) const {
        const float* products = tile.products.row(row_of_tile);
        std::size_t group = 0;
        while (group < tile.base_rows) {
            group = find_above(products, &scores_.base_factor[tile.base_begin],
                               &scores_.base_offset[tile.base_begin], scores_.product_error,
                               scores_.query_factor[i], limit(), group, tile.base_rows);
            const std::size_t stop = std::min(tile.base_rows, group + scan_width);
            for (std::size_t c = group; c < stop; ++c) {
                const std::size_t j = tile.base_begin + c;
                const float upper = bound(i, j, products[c]);
                if (upper > limit() && j != self(i)) visit(j, upper);
            }
            group = stop;
        }
    }

    void reduce_into_queries(const Tile& tile, std::vector<Candidates::Entry>& space) {
        for (std::size_t r = 0; r < tile.queries; ++r) {
            const std::size_t i = tile.query_begin + r;
            visit_above(
                tile, r, i, [&] { return candidates_.limit(i); },
                [&](std::size_t j, float upper) {
                    candidates_.insert(i, static_cast<std::int32_t>(j), upper, space);
                });
        }
    }

    // Here the tile's base rows are the queries and its queries their possible neighbors.
    void reduce_into_base_rows(const Tile& tile, std::vector<Candidates::Entry>& space) {
        const std::size_t begin = tile.base_begin;
        for (std::size_t r = 0; r < tile.queries; ++r) {
            const std::size_t j = tile.query_begin + r;
            const float* products = tile.products.row(r);
            std::size_t group = 0;
            while (group < tile.base_rows) {
                group =
                    find_above_queries(products, &scores_.query_factor[begin], candidates_.limits() + begin,
                                       scores_.product_error, scores_.base_factor[j], scores_.base_offset[j],
                                       group, tile.base_rows);
                const std::size_t stop = std::min(tile.base_rows, group + scan_width);
                for (std::size_t c = group; c < stop; ++c) {
                    const std::size_t i = begin + c;
                    candidates_.insert(i, static_cast<std::int32_t>(j), bound(i, j, products[c]), space);
                }
                group = stop;
            }
        }
    }

    // Ranks each query's candidates by exact score and writes the best k. Returns the queries for which
    // a row that is no candidate may belong among them, by the limit up to which candidates were passed
    // over.
    std::vector<std::size_t> order() {
        constexpr std::size_t queries_per_task = 16;
        const auto team = static_cast<std::size_t>(threads_);
        std::vector<std::vector<std::size_t>> open(team);
        std::vector<std::vector<Scored>> found(team);
        std::vector<std::vector<Candidates::Entry>> scratch(team);
        parallel_ranges("order", question_.queries.size, queries_per_task, threads_, monitor_,
                        [&](std::size_t begin, std::size_t end, const Worker& worker) {
                            const auto id = static_cast<std::size_t>(worker.id());
                            for (std::size_t i = begin; i < end; ++i) {
                                candidates_.cut(i, scratch[id]);
                                if (!order_query(i, found[id])) open[id].push_back(i);
                            }
                        });
        for (std::size_t id = 1; id < team; ++id)
            open[0].insert(open[0].end(), open[id].begin(), open[id].end());
        std::sort(open[0].begin(), open[0].end());
        return open[0];
    }

    bool order_query(std::size_t i, std::vector<Scored>& found) {
        const std::int32_t* rows = candidates_.rows(i);
        found.clear();
        for (std::size_t c = 0; c < candidates_.count(i); ++c) {
            found.push_back({scores_.exact(i, static_cast<std::size_t>(rows[c])), rows[c]});
        }
        write(i, found);
        const bool nothing_passed_over = std::isinf(candidates_.limit(i));
        return nothing_passed_over || scores_.below(i, found[question_.k - 1].score) >= candidates_.limit(i);
    }

    void write(std::size_t i, std::vector<Scored>& found) {
        const std::size_t written = std::min(question_.k, found.size());
        const auto middle = found.begin() + static_cast<std::ptrdiff_t>(written);
        std::partial_sort(found.begin(), middle, found.end());
        std::int32_t* rows = indices_.row(i);
        float* similarities = similarities_.row(i);
        for (std::size_t c = 0; c < written; ++c) {
            rows[c] = found[c].row;
            similarities[c] = scores_.similarity(found[c].score);
        }
        std::fill(rows + written, rows + question_.k, -1);
        std::fill(similarities + written, similarities + question_.k,
                  std::numeric_limits<float>::quiet_NaN());
    }

    // Asks again for the open queries. Every row whose bound is above the k-th exact score known is
    // scored exactly, so nothing can be missed this time.
    void widen(const std::vector<std::size_t>& open) {
        const std::size_t share = (open.size() - 1) / (4 * static_cast<std::size_t>(threads_)) + 1;
        const std::size_t batch =
            std::clamp(share, std::min<std::size_t>(16, tiles_.block()), tiles_.block());
        parallel_ranges("settle ties", open.size(), batch, threads_, monitor_,
                        [&](std::size_t begin, std::size_t end, const Worker& worker) {
                            widen_batch({open.begin() + static_cast<std::ptrdiff_t>(begin),
                                         open.begin() + static_cast<std::ptrdiff_t>(end)},
                                        worker);
                        });
    }

    void widen_batch(const std::vector<std::size_t>& batch, const Worker& worker) {
        std::vector<std::vector<Scored>> found(batch.size());
        std::vector<float> limits;
        for (const std::size_t i : batch) {
            const std::int32_t last = indices_.row(i)[question_.k - 1];
            limits.push_back(scores_.below(i, scores_.exact(i, static_cast<std::size_t>(last))));
        }
        for (std::size_t block = 0; block < tiles_.base_blocks(); ++block) {
            const Tile tile = tiles_.compute_listed(batch, block, worker);
            for (std::size_t r = 0; r < batch.size(); ++r) {
                const std::size_t i = batch[r];
                visit_above(
                    tile, r, i, [&] { return limits[r]; },
                    [&](std::size_t j, float) {
                        found[r].push_back({scores_.exact(i, j), static_cast<std::int32_t>(j)});
                    });
                keep_best(i, found[r], limits[r]);
            }
        }
        for (std::size_t r = 0; r < batch.size(); ++r) write(batch[r], found[r]);
    }

    // Keeps a list that grows past twice k short, and its limit high.
    void keep_best(std::size_t i, std::vector<Scored>& found, float& limit) const {
        if (found.size() < 2 * question_.k + 64) return;
        const auto last = found.begin() + static_cast<std::ptrdiff_t>(question_.k) - 1;
        std::nth_element(found.begin(), last, found.end());
        limit = std::max(limit, scores_.below(i, last->score));
        found.resize(question_.k);
    }

    const KnnQuestion& question_;
    RowSet base_;
    int threads_;
    Monitor& monitor_;
    MatrixView<std::int32_t> indices_;
    MatrixView<float> similarities_;
    std::vector<double> base_squared_norms_, query_squared_norms_;
    Scores scores_;
    Tiles tiles_;
    Candidates candidates_;
};

}  // namespace

std::size_t knn_capacity(const KnnQuestion& question) {
    const std::size_t k = question.k;
    const std::size_t wanted = 96 + k / 3;
    const std::size_t affordable =
        spare_bytes / (entry_bytes * std::max<std::size_t>(1, question.queries.size));
    return std::min(question.base.rows, k + std::max<std::size_t>(16, std::min(wanted, affordable)));
}

void knn(const KnnQuestion& question, int threads, Monitor& monitor, MatrixView<std::int32_t> indices,
         MatrixView<float> similarities) {
    Search(question, threads, monitor, indices, similarities).run();
}

}  // namespace embgeom
