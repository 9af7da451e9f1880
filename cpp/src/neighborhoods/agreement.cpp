#include "embgeom/neighborhoods/agreement.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "embgeom/base/error.hpp"

namespace embgeom {
namespace {

constexpr std::size_t rows_per_task = 512;
constexpr std::size_t rows_per_checkpoint = 4096;
// Up to this length, comparing all pairs is faster than sorting. Tuned by
// benchmarks/kernels/bench_agreement.py.
constexpr std::size_t pairwise_limit = 48;

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

std::size_t checked(std::int32_t number, std::size_t n, const char* what) {
    if (number < 0 || static_cast<std::size_t>(number) >= n) {
        throw InvalidInput(std::to_string(number) + " among the " + what + " is not one of the " +
                           std::to_string(n) + " tokens");
    }
    return static_cast<std::size_t>(number);
}

// What token i of the first adds when it is token `label` of the second. `places` is 0 everywhere, before and
// after.
double agreement_of_token(const ListedValues& a, const ListedValues& b, std::size_t i, std::size_t label,
                          const std::int32_t* labels, std::vector<std::int32_t>& places) {
    const std::size_t n = places.size(), k = b.neighbors.cols;
    const std::int32_t* near_a = a.neighbors.row(i);
    const std::int32_t* near_b = b.neighbors.row(label);
    for (std::size_t l = 0; l < k; ++l) {
        if (near_b[l] != -1) places[checked(near_b[l], n, "neighbors")] = static_cast<std::int32_t>(l) + 1;
    }
    double sum = 0.0;
    for (std::size_t j = 0; j < a.neighbors.cols; ++j) {
        if (near_a[j] == -1) continue;
        const std::size_t as_b = checked(labels[checked(near_a[j], n, "neighbors")], n, "labels");
        const auto place = static_cast<std::size_t>(places[as_b]);
        if (place == 0) continue;
        const double of_a = a.values.data == nullptr ? 1.0 : a.values.row(i)[j];
        sum += of_a * (b.values.data == nullptr ? 1.0 : b.values.row(label)[place - 1]);
    }
    for (std::size_t l = 0; l < k; ++l) {
        if (near_b[l] != -1) places[checked(near_b[l], n, "neighbors")] = 0;
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
    const std::size_t n = labels.cols;
    const int workers = useful_workers(labels.rows, threads, n * sizeof(std::int32_t));
    std::vector<std::vector<std::int32_t>> places(static_cast<std::size_t>(workers),
                                                  std::vector<std::int32_t>(n, 0));
    parallel_for("relabel", labels.rows, workers, monitor, [&](std::size_t draw, const Worker& worker) {
        const std::int32_t* as_b = labels.row(draw);
        double sum = 0.0;
        for (std::size_t i = 0; i < n; ++i) {
            if (i % rows_per_checkpoint == 0) worker.checkpoint();
            sum += agreement_of_token(a, b, i, checked(as_b[i], n, "labels"), as_b,
                                      places[static_cast<std::size_t>(worker.id())]);
        }
        sums[draw] = sum;
    });
}

}  // namespace embgeom
