#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/parallel.hpp"

namespace embgeom {

// Sums of vectors over all rows: each of at most 64 tasks adds up its own rows, in steps of a few, and the
// partial sums are added up in the order of the tasks.
template <class Add>
std::vector<double> sum_rows(const char* phase, std::size_t n, std::size_t width, int threads,
                             Monitor& monitor, Add add) {
    constexpr std::size_t rows_per_task = 256, most_partial_sums = 64;
    // Few enough rows of two matrices to stay in the cache between their norms and their sum.
    constexpr std::size_t rows_per_step = 16;
    const std::size_t grain = std::max(rows_per_task, divide_up(n, most_partial_sums));
    std::vector<double> partial(divide_up(n, grain) * width, 0.0);
    parallel_ranges(phase, n, grain, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker& worker) {
                        double* sums = partial.data() + begin / grain * width;
                        for (std::size_t i = begin; i < end; i += rows_per_step) {
                            if ((i - begin) % rows_per_task == 0) worker.checkpoint();
                            add(i, std::min(i + rows_per_step, end), sums);
                        }
                    });
    std::vector<double> sum(width, 0.0);
    for (std::size_t place = 0; place < partial.size(); ++place) sum[place % width] += partial[place];
    return sum;
}

}  // namespace embgeom
