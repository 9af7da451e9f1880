#include "embgeom/knn/scores.hpp"

#include <algorithm>
#include <cmath>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/dot.hpp"

namespace embgeom {

double Scores::from_sum(std::size_t i, std::size_t j, double sum) const {
    switch (metric_) {
        case Metric::cosine:
            return sum / std::sqrt(query_squared_norms_[i] * base_squared_norms_[j]);
        case Metric::inner_product:
            return sum;
        case Metric::euclidean:
            return -sum;
    }
    return sum;
}

double Scores::exact(std::size_t i, std::size_t j) const {
    const auto sum = metric_ == Metric::euclidean ? squared_distance : dot;
    return from_sum(i, j, sum(queries_.row(i), base_.row(j), base_.matrix.cols));
}

void Scores::exact(std::size_t i, const std::int32_t* rows, std::size_t count, double* scores) const {
    const auto sum = metric_ == Metric::euclidean ? squared_distances : dots;
    const float* others[rows_at_a_time];
    double sums[rows_at_a_time];
    for (std::size_t c = 0; c < count; c += rows_at_a_time) {
        const std::size_t some = std::min(rows_at_a_time, count - c);
        for (std::size_t r = 0; r < some; ++r) others[r] = base_.row(static_cast<std::size_t>(rows[c + r]));
        sum(queries_.row(i), others, some, base_.matrix.cols, sums);
        for (std::size_t r = 0; r < some; ++r)
            scores[c + r] = from_sum(i, static_cast<std::size_t>(rows[c + r]), sums[r]);
    }
}

double Scores::below(float similarity) const {
    const double next = std::nextafter(similarity, -infinity);
    return metric_ == Metric::euclidean ? -next * next : next;
}

}  // namespace embgeom
