#include "embgeom/knn/knn.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/rows.hpp"
#include "embgeom/knn/bounds.hpp"
#include "embgeom/knn/candidates.hpp"
#include "embgeom/knn/equal_rows.hpp"
#include "embgeom/knn/floors.hpp"
#include "embgeom/knn/reduction.hpp"
#include "embgeom/knn/search.hpp"
#include "embgeom/knn/tiles.hpp"

namespace embgeom {
namespace {

constexpr std::size_t spare_bytes = std::size_t{128} << 20U;
constexpr std::size_t second_search_bytes = std::size_t{32} << 20U;
constexpr std::size_t entry_bytes = sizeof(std::int32_t) + sizeof(float);

// The squared norms of the rows of two matrices, which may be one.
struct Norms {
    const std::vector<double>&queries, &base;
};

std::vector<double> select(const std::vector<double>& values, const RowSet& rows) {
    std::vector<double> selected(rows.size);
    for (std::size_t i = 0; i < rows.size; ++i) selected[i] = values[rows.row_number(i)];
    return selected;
}

class Search {
  public:
    // The names of the search's phases for the monitor, and whether floors may be guessed.
    struct Mode {
        const char *multiply, *order;
        bool guess;
    };

    Search(const KnnQuestion& question, const Norms& norms, const Mode& mode, int threads, Monitor& monitor,
           const Buffers& buffers)
        : question_(question),
          norms_(norms),
          mode_(mode),
          threads_(threads),
          monitor_(monitor),
          buffers_(buffers),
          query_norms_(select(norms.queries, question.queries)),
          base_norms_(select(norms.base, question.base)),
          largest_block_(Tiles::largest_block(std::max(question.queries.size, question.base.size),
                                              question.base.matrix.cols, threads)),
          setup_{.queries = question.queries,
                 .base = question.base,
                 .query_blocks = Blocks(question.queries.size, largest_block_),
                 .base_blocks = Blocks(question.base.size, largest_block_),
                 .k = question.k,
                 .self_join = question.self_join,
                 .exclude_self = question.queries_are_base_rows && question.exclude_self},
          guess_(setup_, mode.guess),
          scores_(question.metric, question.queries, question.base, query_norms_, base_norms_),
          bounds_(question.metric, setup_.query_blocks, setup_.base_blocks, setup_.self_join,
                  question.base.matrix.cols, query_norms_, base_norms_),
          candidates_(scores_, bounds_, buffers, question.queries.size, question.k) {}

    const Scores& scores() const { return scores_; }

    void run() {
        collect();
        const std::vector<std::int64_t> short_queries = order();
        if (!short_queries.empty()) search_again(short_queries);
    }

  private:
    struct Place {
        std::size_t query_square, base_square;
    };

    // Row by row in a rectangle. In a triangle the diagonal comes first, so that blocks have floors, as a
    // rule, when the others begin; then the first row of squares together with the last makes as many as the
    // second together with the last but one, and so on.
    Place place(std::size_t task, std::size_t squares) const {
        if (!setup_.self_join) return {task / squares, task % squares};
        if (task < squares) return {task, task};
        const std::size_t row = (task - squares) / (squares - 1);
        const std::size_t column = (task - squares) % (squares - 1);
        if (row + 1 + column < squares) return {row, row + 1 + column};
        return {squares - 1 - row, column + 1};
    }

    // The side of the squares in which tiles are visited: as large as is useful, but so that each worker has
    // many.
    std::size_t choose_square() const {
        constexpr std::size_t squares_per_worker = 16;  // tuned by benchmarks/kernels/bench_knn.py
        const std::size_t tiles = setup_.query_blocks.count() * setup_.base_blocks.count();
        std::size_t square = Tiles::largest_square(largest_block_, question_.base.matrix.cols, threads_);
        while (square > 1 &&
               tiles < squares_per_worker * static_cast<std::size_t>(threads_) * square * square)
            --square;
        return square;
    }

    // Calls visit(query_block, base_block) for the tiles of a square; in a self-join those below the
    // diagonal are the transposes of those above, and are left out. Those on the diagonal come first, so
    // that blocks have floors, as a rule, before they are compared with others.
    template <class Visit>
    void visit_square(const Place& place, std::size_t square, Visit visit) const {
        const std::size_t q_begin = square * place.query_square, b_begin = square * place.base_square;
        const std::size_t q_end = std::min(q_begin + square, setup_.query_blocks.count());
        const std::size_t b_end = std::min(b_begin + square, setup_.base_blocks.count());
        const bool on_diagonal = setup_.self_join && q_begin == b_begin;
        if (on_diagonal) {
            for (std::size_t q = q_begin; q < q_end; ++q) visit(q, q);
        }
        for (std::size_t q = q_begin; q < q_end; ++q) {
            for (std::size_t b = on_diagonal ? q + 1 : b_begin; b < b_end; ++b) visit(q, b);
        }
    }

    void collect() {
        const std::size_t square = choose_square();
        const std::size_t rows = divide_up(setup_.query_blocks.count(), square);
        const std::size_t squares = divide_up(setup_.base_blocks.count(), square);
        const std::size_t tasks = setup_.self_join ? squares * (squares + 1) / 2 : rows * squares;
        Tiles tiles(setup_.queries, setup_.base, setup_.query_blocks, setup_.base_blocks, square,
                    query_norms_, base_norms_, threads_);
        Reduction reduction(setup_, scores_, bounds_, guess_, candidates_, threads_);
        parallel_for(mode_.multiply, tasks, threads_, monitor_, [&](std::size_t task, const Worker& worker) {
            visit_square(place(task, squares), square, [&](std::size_t query_block, std::size_t base_block) {
                reduction.reduce(tiles.compute(query_block, base_block, worker), worker);
            });
        });
    }

    // Returns the queries whose floor was guessed too high.
    std::vector<std::int64_t> order() {
        constexpr std::size_t queries_per_task = 64;
        const auto team = static_cast<std::size_t>(threads_);
        std::vector<std::vector<std::int64_t>> short_queries(team);
        std::vector<Candidates::Scratch> scratch(team);
        parallel_ranges(mode_.order, question_.queries.size, queries_per_task, threads_, monitor_,
                        [&](std::size_t begin, std::size_t end, const Worker& worker) {
                            const auto id = static_cast<std::size_t>(worker.id());
                            for (std::size_t i = begin; i < end; ++i) {
                                if (!candidates_.finish(i, scratch[id]))
                                    short_queries[id].push_back(static_cast<std::int64_t>(i));
                            }
                        });
        std::vector<std::int64_t> all;
        for (const auto& some : short_queries) all.insert(all.end(), some.begin(), some.end());
        std::sort(all.begin(), all.end());
        return all;
    }

    // In a matrix with an unlucky order all rows may have to be searched again, so it is done in parts, whose
    // buffers are small compared with the workspace that is free by now.
    void search_again(const std::vector<std::int64_t>& short_queries) {
        const std::size_t row_bytes = entry_bytes * (question_.k + 16 + 24 + question_.k / 3);
        const std::size_t part = std::max<std::size_t>(1, second_search_bytes / row_bytes);
        for (std::size_t begin = 0; begin < short_queries.size(); begin += part) {
            const auto first = short_queries.begin() + static_cast<std::ptrdiff_t>(begin);
            const std::size_t count = std::min(part, short_queries.size() - begin);
            search_part_again({first, first + static_cast<std::ptrdiff_t>(count)});
        }
    }

    // The same search for some queries, without guesses, into buffers of its own.
    void search_part_again(const std::vector<std::int64_t>& short_queries) {
        std::vector<std::int64_t> rows;
        for (const std::int64_t i : short_queries) {
            rows.push_back(
                static_cast<std::int64_t>(question_.queries.row_number(static_cast<std::size_t>(i))));
        }
        KnnQuestion question = question_;
        question.queries = RowSet::selected(question_.queries.matrix, rows);
        question.self_join = false;
        const std::size_t capacity = knn_capacity(question);
        std::vector<std::int32_t> indices(rows.size() * capacity);
        std::vector<float> similarities(rows.size() * capacity);
        const Buffers found{.rows = {indices.data(), rows.size(), capacity, capacity},
                            .similarities = {similarities.data(), rows.size(), capacity, capacity}};
        const Mode mode{.multiply = "multiply again", .order = "order again", .guess = false};
        Search(question, norms_, mode, threads_, monitor_, found).run();
        for (std::size_t r = 0; r < rows.size(); ++r) {
            const auto i = static_cast<std::size_t>(short_queries[r]);
            std::copy_n(found.rows_of(r), question_.k, buffers_.rows_of(i));
            std::copy_n(found.similarities_of(r), question_.k, buffers_.similarities_of(i));
        }
    }

    const KnnQuestion& question_;
    Norms norms_;
    Mode mode_;
    int threads_;
    Monitor& monitor_;
    Buffers buffers_;
    std::vector<double> query_norms_, base_norms_;
    std::size_t largest_block_;
    SearchSetup setup_;
    FloorGuess guess_;
    Scores scores_;
    Bounds bounds_;
    Candidates candidates_;
};

}  // namespace

std::size_t knn_capacity(const KnnQuestion& question) {
    const std::size_t k = question.k;
    const std::size_t wanted = 24 + k / 3;
    const std::size_t affordable =
        spare_bytes / (entry_bytes * std::max<std::size_t>(1, question.queries.size));
    return std::min(question.base.size, k + std::max<std::size_t>(16, std::min(wanted, affordable)));
}

void knn(const KnnQuestion& question, int threads, Monitor& monitor, MatrixView<std::int32_t> indices,
         MatrixView<float> similarities) {
    const std::vector<double> base_norms = squared_norms(question.base.matrix, "x", threads, monitor);
    std::vector<double> other_norms;
    if (!question.queries_are_base_rows)
        other_norms = squared_norms(question.queries.matrix, "queries", threads, monitor);
    const Norms norms{.queries = question.queries_are_base_rows ? base_norms : other_norms,
                      .base = base_norms};
    const Search::Mode mode{.multiply = "multiply", .order = "order", .guess = true};
    const DistinctQuestion distinct(question, norms.queries, norms.base, threads, monitor);
    const Buffers buffers = distinct.buffers(indices, similarities);
    const std::size_t rows = std::max(distinct.question().queries.size, distinct.question().base.size);
    const int workers = useful_workers(rows, threads, Tiles::most_bytes);
    Search search(distinct.question(), norms, mode, workers, monitor, buffers);
    if (distinct.question().k > 0) search.run();
    distinct.expand(search.scores(), buffers, threads, monitor);
}

}  // namespace embgeom
