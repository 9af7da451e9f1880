#include "arrays.hpp"
#include "embgeom/similarity/similarity.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

double correlation_of_similarities(const Rows& a, const Rows& b, const std::optional<RowNumbers>& rows,
                                   bool center, bool include_diagonal, int threads,
                                   const py::object& progress) {
    return run_unlocked(progress, [&](Monitor& monitor) {
        return global_similarity(row_set(a, rows), row_set(b, rows),
                                 {.center = center, .include_diagonal = include_diagonal}, threads, monitor);
    });
}

using ThreeDoubles = std::tuple<Doubles, Doubles, Doubles>;

// Center, inverse norms and mean of the directions.
ThreeDoubles unit_rows(const UnitRows& unit) {
    return {copy_to_array(unit.center), copy_to_array(unit.inverse), copy_to_array(unit.mean)};
}

std::tuple<double, std::tuple<double, double, double>, ThreeDoubles, std::tuple<Doubles, Doubles>, Doubles,
           ThreeDoubles, ThreeDoubles>
terms_of_similarity(const Rows& a, const Rows& b, bool center, int threads, const py::object& progress) {
    const SimilarityTerms terms = run_unlocked(progress, [&](Monitor& monitor) {
        return similarity_terms(RowSet::all(view(a)), RowSet::all(view(b)), center, threads, monitor);
    });
    return {terms.correlation,
            {terms.total.aa, terms.total.ab, terms.total.bb},
            {copy_to_array(terms.sums.aa), copy_to_array(terms.sums.ab), copy_to_array(terms.sums.bb)},
            {copy_to_array(terms.along_a), copy_to_array(terms.along_b)},
            copy_to_array(terms.centering),
            unit_rows(terms.pair.a),
            unit_rows(terms.pair.b)};
}

// A matrix's rows as they are.
UnitRows plain_rows(const Rows& x) {
    const std::vector<double> zero(static_cast<std::size_t>(x.shape(1)), 0.0);
    return {RowSet::all(view(x)), zero, std::vector<double>(static_cast<std::size_t>(x.shape(0)), 1.0), zero};
}

std::tuple<ThreeDoubles, ThreeDoubles> products_of_columns(const Rows& x, const Rows& y, int threads,
                                                           const py::object& progress) {
    Doubles xx({x.shape(1), x.shape(1)}), xy({x.shape(1), y.shape(1)}), yy({y.shape(1), y.shape(1)});
    const ProductMatrices matrices{mutable_view(xx), mutable_view(xy), mutable_view(yy)};
    const RowForms forms = run_unlocked(progress, [&](Monitor& monitor) {
        const UnitPair pair{plain_rows(x), plain_rows(y), static_cast<std::size_t>(x.shape(0))};
        RowForms found;
        product_norms(pair, threads, monitor, &found, &matrices);
        return found;
    });
    return {{xx, xy, yy}, {copy_to_array(forms.aa), copy_to_array(forms.ab), copy_to_array(forms.bb)}};
}

}  // namespace

void bind_similarity(py::module_& module) {
    module.def("global_similarity", &correlation_of_similarities,
               "Correlation of two matrices' pairwise cosine similarities.", py::arg("a").noconvert(),
               py::arg("b").noconvert(), py::arg("rows").noconvert(), py::kw_only(), py::arg("center"),
               py::arg("include_diagonal"), py::arg("threads"), py::arg("progress"));
    module.def("similarity_terms", &terms_of_similarity,
               "What baselines and intervals of that correlation are made of.", py::arg("a").noconvert(),
               py::arg("b").noconvert(), py::kw_only(), py::arg("center"), py::arg("threads"),
               py::arg("progress"));
    module.def("row_products", &products_of_columns,
               "Products of the columns of two matrices, and what each row has of their squared norms.",
               py::arg("x").noconvert(), py::arg("y").noconvert(), py::kw_only(), py::arg("threads"),
               py::arg("progress"));
}

}  // namespace embgeom::bindings
