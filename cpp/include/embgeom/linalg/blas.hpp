#pragma once

#include <cstddef>
#include <string>
#include <vector>

// The few routines of BLAS and LAPACK that kernels use, on row-major arrays whose rows lie `ld*`
// elements apart. Each runs on the calling thread alone: kernels are parallel over tiles and tokens,
// not inside a product.
namespace embgeom::blas {

// Keeps a threaded BLAS at one thread. Called once, when the extension is loaded.
void use_one_thread();

// The library, and where it is OpenBLAS its version and the core for which it has chosen kernels.
std::string name();

// C (m, n) = A (m, k) B (n, k)^T + beta C, in float32 or float64.
void multiply_nt(std::size_t m, std::size_t n, std::size_t k, const float* a, std::size_t lda, const float* b,
                 std::size_t ldb, float beta, float* c, std::size_t ldc);
void multiply_nt(std::size_t m, std::size_t n, std::size_t k, const double* a, std::size_t lda,
                 const double* b, std::size_t ldb, double beta, double* c, std::size_t ldc);

// C (m, n) = A (k, m)^T B (k, n) + beta C, in float32 or float64.
void multiply_tn(std::size_t m, std::size_t n, std::size_t k, const float* a, std::size_t lda, const float* b,
                 std::size_t ldb, float beta, float* c, std::size_t ldc);
void multiply_tn(std::size_t m, std::size_t n, std::size_t k, const double* a, std::size_t lda,
                 const double* b, std::size_t ldb, double beta, double* c, std::size_t ldc);

// Lower triangle of C (n, n) = A (k, n)^T A + beta C, in float32 or float64; what lies above it is left
// alone.
void gram_of_columns(std::size_t n, std::size_t k, const float* a, std::size_t lda, float beta, float* c,
                     std::size_t ldc);
void gram_of_columns(std::size_t n, std::size_t k, const double* a, std::size_t lda, double beta, double* c,
                     std::size_t ldc);

// Lower triangle of C (n, n) = A (n, k) A^T + beta C, in float32 or float64; what lies above it is left
// alone.
void gram_of_rows(std::size_t n, std::size_t k, const float* a, std::size_t lda, float beta, float* c,
                  std::size_t ldc);
void gram_of_rows(std::size_t n, std::size_t k, const double* a, std::size_t lda, double beta, double* c,
                  std::size_t ldc);

// Lower triangle of C (n, n) -= A (k, n)^T B (k, n) + B^T A.
void subtract_products(std::size_t n, std::size_t k, const float* a, std::size_t lda, const float* b,
                       std::size_t ldb, float* c, std::size_t ldc);

// Solves C x = b for a symmetric positive definite C (n, n) of which the lower triangle is given; C is
// overwritten by its Cholesky factor and b by x. False where C is not positive definite.
bool solve_positive(std::size_t n, double* c, double* b);

// Rank of a positive semidefinite C (n, n), lower triangle given, by Cholesky with complete pivoting:
// pivots of at most `tolerance` count as zero. C and `work` are overwritten.
std::size_t semidefinite_rank(std::size_t n, double* c, double tolerance, std::vector<double>& work);

// Eigenvalues of a symmetric C (n, n), lower triangle given, in ascending order. C and `work` are
// overwritten.
void eigenvalues(std::size_t n, double* c, double* values, std::vector<double>& work);

// tridiagonal_form of tridiagonal_form.hpp, by LAPACK. C and `work` are overwritten.
void tridiagonal_form(std::size_t n, float* c, float* diagonal, float* off_diagonal,
                      std::vector<float>& work);

// Turns the diagonal (n) of a symmetric tridiagonal matrix into its eigenvalues, in ascending order. The
// off-diagonal elements (n - 1) are overwritten.
void tridiagonal_eigenvalues(std::size_t n, double* diagonal, double* off_diagonal);

}  // namespace embgeom::blas
