#include "embgeom/neighborhoods/agreement.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "embgeom/base/error.hpp"
#include "embgeom/base/multiversion.hpp"

namespace embgeom {
namespace {

constexpr std::size_t rows_per_task = 512;
constexpr std::size_t rows_per_checkpoint = 4096;
// Up to this length, comparing all pairs is faster than sorting. Tuned by
// benchmarks/kernels/bench_agreement.py.
constexpr std::size_t pairwise_limit = 48;
constexpr std::size_t relabeled_pairwise_limit = 16;

void compare_all_pairs(const std::int32_t* a, const std::int32_t* b, std::size_t k, std::int32_t* result) {
    for (std::size_t j = 0; j < k; ++j) {
        std::int32_t found = -1;
        for (std::size_t l = 0; l < k; ++l) found = b[l] == a[j] ? static_cast<std::int32_t>(l) : found;
        result[j] = a[j] < 0 ? -1 : found;
    }
}

using Placed = std::pair<std::int32_t, std::int32_t>;  // a number and its place

void search_sorted(const std::int32_t* a, const std::int32_t* b, std::size_t k, std::vector<Placed>& sorted,
                   std::int32_t* result) {
    sorted.clear();
    for (std::size_t l = 0; l < k; ++l) sorted.emplace_back(b[l], static_cast<std::int32_t>(l));
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t j = 0; j < k; ++j) {
        const auto found = std::lower_bound(sorted.begin(), sorted.end(), Placed{a[j], 0});
        result[j] = a[j] >= 0 && found != sorted.end() && found->first == a[j] ? found->second : -1;
    }
}

void check_range(MatrixView<const std::int32_t> numbers, std::int32_t least, std::size_t n,
                 const char* what) {
    for (std::size_t i = 0; i < numbers.rows; ++i) {
        const std::int32_t* row = numbers.row(i);
        for (std::size_t l = 0; l < numbers.cols; ++l) {
            if (row[l] >= least && (row[l] < 0 || static_cast<std::size_t>(row[l]) < n)) continue;
            throw InvalidInput(std::to_string(row[l]) + " among the " + what + " is not one of the " +
                               std::to_string(n) + " tokens");
        }
    }
}

// Stands for no token, and is in no list.
constexpr std::int32_t nobody = -2;
// As many numbers as a wide vector register holds.
constexpr std::size_t lanes = 16;
constexpr std::size_t tokens_ahead = 8;

// Whether any of `lanes` numbers is in a list. Written with vectors: compilers make them of the wrong loop.
EMBGEOM_MULTIVERSION
bool any_listed(const std::int32_t* numbers, const std::int32_t* list, std::size_t k) {
    using Numbers = std::int32_t __attribute__((vector_size(lanes * sizeof(std::int32_t))));
    Numbers all, found{};
    __builtin_memcpy(&all, numbers, sizeof all);
    for (std::size_t l = 0; l < k; ++l) found |= all == list[l];
    std::int32_t any = 0;
    for (std::size_t j = 0; j < lanes; ++j) any |= found[j];
    return any != 0;
}

double value_of(const ListedValues& lists, std::size_t i, std::size_t j) {
    return lists.values.data == nullptr ? 1.0 : lists.values.row(i)[j];
}

// What token i of the first adds when it is token `label` of the second, by comparing all pairs of neighbors.
double agreement_of_pairs(const ListedValues& a, const ListedValues& b, std::size_t i, std::size_t label,
                          const std::int32_t* labels) {
    const std::size_t k = b.neighbors.cols;
    const std::int32_t* near_a = a.neighbors.row(i);
    const std::int32_t* near_b = b.neighbors.row(label);
    double sum = 0.0;
    for (std::size_t begin = 0; begin < a.neighbors.cols; begin += lanes) {
        const std::size_t count = std::min(lanes, a.neighbors.cols - begin);
        std::int32_t as_b[lanes];
        std::fill_n(as_b, lanes, nobody);
        for (std::size_t j = 0; j < count; ++j) {
            if (near_a[begin + j] != -1) as_b[j] = labels[near_a[begin + j]];
        }
        // Few tokens have a neighbor in common with another that they are taken for.
        if (!any_listed(as_b, near_b, k)) continue;
        for (std::size_t j = 0; j < count; ++j) {
            const auto place = static_cast<std::size_t>(std::find(near_b, near_b + k, as_b[j]) - near_b);
            if (place < k) sum += value_of(a, i, begin + j) * value_of(b, label, place);
        }
    }
    return sum;
}

// The same by looking places up: `places` (n) holds zeros before and after.
double agreement_of_places(const ListedValues& a, const ListedValues& b, std::size_t i, std::size_t label,
                           const std::int32_t* labels, std::vector<std::int32_t>& places) {
    const std::int32_t* near_a = a.neighbors.row(i);
    const std::int32_t* near_b = b.neighbors.row(label);
    for (std::size_t l = 0; l < b.neighbors.cols; ++l) {
        if (near_b[l] != -1) places[static_cast<std::size_t>(near_b[l])] = static_cast<std::int32_t>(l) + 1;
    }
    double sum = 0.0;
    for (std::size_t j = 0; j < a.neighbors.cols; ++j) {
        if (near_a[j] == -1) continue;
        const std::int32_t place = places[static_cast<std::size_t>(labels[near_a[j]])];
        if (place > 0) sum += value_of(a, i, j) * value_of(b, label, static_cast<std::size_t>(place - 1));
    }
    for (std::size_t l = 0; l < b.neighbors.cols; ++l) {
        if (near_b[l] != -1) places[static_cast<std::size_t>(near_b[l])] = 0;
    }
    return sum;
}

}  // namespace

void positions(MatrixView<const std::int32_t> a, MatrixView<const std::int32_t> b, int threads,
               Monitor& monitor, MatrixView<std::int32_t> result) {
    parallel_ranges("positions", a.rows, rows_per_task, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker&) {
                        std::vector<Placed> sorted;
                        for (std::size_t i = begin; i < end; ++i) {
                            if (a.cols <= pairwise_limit) {
                                compare_all_pairs(a.row(i), b.row(i), a.cols, result.row(i));
                            } else {
                                search_sorted(a.row(i), b.row(i), a.cols, sorted, result.row(i));
                            }
                        }
                    });
}

void relabeled_agreement(const ListedValues& a, const ListedValues& b, MatrixView<const std::int32_t> labels,
                         int threads, Monitor& monitor, std::span<double> sums) {
    const std::size_t n = labels.cols, k = b.neighbors.cols;
    check_range(a.neighbors, -1, n, "neighbors");
    check_range(b.neighbors, -1, n, "neighbors");
    check_range(labels, 0, n, "labels");
    std::vector<std::vector<std::int32_t>> scratch(static_cast<std::size_t>(threads));
    parallel_for("relabel", labels.rows, threads, monitor, [&](std::size_t draw, const Worker& worker) {
        const std::int32_t* as_b = labels.row(draw);
        std::vector<std::int32_t>& places = scratch[static_cast<std::size_t>(worker.id())];
        if (k > relabeled_pairwise_limit) places.resize(n);
        double sum = 0.0;
        for (std::size_t i = 0; i < n; ++i) {
            if (i % rows_per_checkpoint == 0) worker.checkpoint();
            // Relabeled lists lie anywhere in memory.
            if (i + tokens_ahead < n) {
                const std::int32_t* next = b.neighbors.row(static_cast<std::size_t>(as_b[i + tokens_ahead]));
                __builtin_prefetch(next);
                __builtin_prefetch(next + k - 1);
            }
            const auto label = static_cast<std::size_t>(as_b[i]);
            sum += k > relabeled_pairwise_limit ? agreement_of_places(a, b, i, label, as_b, places)
                                                : agreement_of_pairs(a, b, i, label, as_b);
        }
        sums[draw] = sum;
    });
}

}  // namespace embgeom
