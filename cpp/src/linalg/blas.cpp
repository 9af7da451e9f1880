#include "embgeom/linalg/blas.hpp"

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

#if __has_include(<pthread.h>) && __has_include(<sys/mman.h>)
#include <pthread.h>
#include <sys/mman.h>
#define EMBGEOM_HAVE_POSIX
#endif

#if defined(EMBGEOM_SCIPY_OPENBLAS)
#define EMBGEOM_BLAS_NAME(name) scipy_##name
#else
#define EMBGEOM_BLAS_NAME(name) name
#endif

// Fortran passes the length of each character argument after all arguments.
extern "C" {
using blas_int = int;
using blas_length = std::size_t;

void EMBGEOM_BLAS_NAME(sgemm_)(const char*, const char*, const blas_int*, const blas_int*, const blas_int*,
                               const float*, const float*, const blas_int*, const float*, const blas_int*,
                               const float*, float*, const blas_int*, blas_length, blas_length);
void EMBGEOM_BLAS_NAME(dgemm_)(const char*, const char*, const blas_int*, const blas_int*, const blas_int*,
                               const double*, const double*, const blas_int*, const double*, const blas_int*,
                               const double*, double*, const blas_int*, blas_length, blas_length);
void EMBGEOM_BLAS_NAME(dsyrk_)(const char*, const char*, const blas_int*, const blas_int*, const double*,
                               const double*, const blas_int*, const double*, double*, const blas_int*,
                               blas_length, blas_length);
void EMBGEOM_BLAS_NAME(ssyrk_)(const char*, const char*, const blas_int*, const blas_int*, const float*,
                               const float*, const blas_int*, const float*, float*, const blas_int*,
                               blas_length, blas_length);
void EMBGEOM_BLAS_NAME(dposv_)(const char*, const blas_int*, const blas_int*, double*, const blas_int*,
                               double*, const blas_int*, blas_int*, blas_length);
void EMBGEOM_BLAS_NAME(dpstrf_)(const char*, const blas_int*, double*, const blas_int*, blas_int*, blas_int*,
                                const double*, double*, blas_int*, blas_length);
void EMBGEOM_BLAS_NAME(dsyevd_)(const char*, const char*, const blas_int*, double*, const blas_int*, double*,
                                double*, const blas_int*, blas_int*, const blas_int*, blas_int*, blas_length,
                                blas_length);
void EMBGEOM_BLAS_NAME(ssyr2k_)(const char*, const char*, const blas_int*, const blas_int*, const float*,
                                const float*, const blas_int*, const float*, const blas_int*, const float*,
                                float*, const blas_int*, blas_length, blas_length);
void EMBGEOM_BLAS_NAME(ssytrd_)(const char*, const blas_int*, float*, const blas_int*, float*, float*, float*,
                                float*, const blas_int*, blas_int*, blas_length);
void EMBGEOM_BLAS_NAME(dsterf_)(const blas_int*, double*, double*, blas_int*);
#if defined(EMBGEOM_SCIPY_OPENBLAS)
void scipy_openblas_set_num_threads(int);
char* scipy_openblas_get_config();
char* scipy_openblas_get_corename();
#elif defined(__GNUC__)
// A system BLAS may or may not be OpenBLAS.
void openblas_set_num_threads(int) __attribute__((weak));
char* openblas_get_config() __attribute__((weak));
char* openblas_get_corename() __attribute__((weak));
#endif
}

namespace embgeom::blas {
namespace {

blas_int to_int(std::size_t value) {
    return static_cast<blas_int>(value);
}

// What OpenBLAS says of how it was built; empty where another library does the work.
std::string_view openblas_config() {
#if defined(EMBGEOM_SCIPY_OPENBLAS)
    return scipy_openblas_get_config();
#elif defined(__GNUC__)
    return openblas_get_config == nullptr ? "" : openblas_get_config();
#else
    return "";
#endif
}

// For which core OpenBLAS has chosen its kernels.
std::string openblas_core() {
#if defined(EMBGEOM_SCIPY_OPENBLAS)
    return scipy_openblas_get_corename();
#elif defined(__GNUC__)
    return openblas_get_corename == nullptr ? "" : openblas_get_corename();
#else
    return "";
#endif
}

// The number of threads that OpenBLAS was built for. It has room for so many callers at a time, and more make
// it end the process. 64 is what it is mostly built for, where the library does not say.
std::size_t most_callers() {
    constexpr std::string_view key = "MAX_THREADS=";
    const std::string_view config = openblas_config();
    std::size_t most = 64;
    if (const std::size_t at = config.find(key); at != std::string_view::npos) {
        std::from_chars(config.data() + at + key.size(), config.data() + config.size(), most);
    }
    return std::max<std::size_t>(most, 1);
}

// OpenBLAS takes a buffer for a caller where none is left from before, and ends the process where it gets
// none. This finds out first.
bool room_for_a_buffer() {
#if defined(EMBGEOM_HAVE_POSIX)
    // Twice what it takes: other threads allocate meanwhile.
    constexpr std::size_t bytes = std::size_t{64} << 20U;
    void* room = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) return false;
    munmap(room, bytes);
#endif
    return true;
}

// Lets only so many callers in at a time, of all threads of the process, as OpenBLAS has room for, and as
// there is memory for: the others wait.
class Gate {
  public:
    void enter() {
        std::unique_lock lock(mutex_);
        left_.wait(lock, [this] { return inside_ < most_; });
        if (inside_ == buffers_) {
            if (room_for_a_buffer()) {
                ++buffers_;
            } else if (buffers_ > 0) {
                left_.wait(lock, [this] { return inside_ < buffers_; });
            } else {
                throw std::bad_alloc();
            }
        }
        ++inside_;
    }

    void leave() {
        const std::lock_guard lock(mutex_);
        --inside_;
        left_.notify_one();
    }

    std::mutex& mutex() { return mutex_; }

  private:
    const std::size_t most_ = most_callers();
    std::size_t inside_ = 0, buffers_ = 0;
    std::mutex mutex_;
    std::condition_variable left_;
};

// Never destroyed: a thread may compute until the process has exited.
Gate* gate = new Gate;

#if defined(EMBGEOM_HAVE_POSIX)
// A forked child has none of the threads that were inside or waited.
[[maybe_unused]] const int fork_handlers =
    pthread_atfork([] { gate->mutex().lock(); }, [] { gate->mutex().unlock(); }, [] { gate = new Gate; });
#endif

// A caller's stay in the library: every routine below begins with one.
class Stay {
  public:
    Stay() { gate->enter(); }
    Stay(const Stay&) = delete;
    Stay& operator=(const Stay&) = delete;
    ~Stay() { gate->leave(); }
};

// C = op(A) op(B)^T + beta C by `gemm` of either precision; see below for the order of A and B.
template <typename Scalar, typename Gemm>
void multiply(const char* of_b, const char* of_a, Gemm* gemm, std::size_t m, std::size_t n, std::size_t k,
              const Scalar* a, std::size_t lda, const Scalar* b, std::size_t ldb, Scalar beta, Scalar* c,
              std::size_t ldc) {
    const Stay stay;
    const blas_int rows = to_int(m), cols = to_int(n), depth = to_int(k);
    const blas_int a_stride = to_int(lda), b_stride = to_int(ldb), c_stride = to_int(ldc);
    const Scalar one = 1;
    gemm(of_b, of_a, &cols, &rows, &depth, &one, b, &b_stride, a, &a_stride, &beta, c, &c_stride, 1, 1);
}

// The lower triangle of C = op(A) op(A)^T + beta C by `syrk` of either precision.
template <typename Scalar, typename Syrk>
void gram(const char* of_a, Syrk* syrk, std::size_t n, std::size_t k, const Scalar* a, std::size_t lda,
          Scalar beta, Scalar* c, std::size_t ldc) {
    const Stay stay;
    const blas_int order = to_int(n), depth = to_int(k), a_stride = to_int(lda), c_stride = to_int(ldc);
    const Scalar one = 1;
    syrk("U", of_a, &order, &depth, &one, a, &a_stride, &beta, c, &c_stride, 1, 1);
}

[[noreturn]] void throw_lapack(const char* routine, blas_int info) {
    throw std::runtime_error(std::string("LAPACK ") + routine +
                             " failed with info = " + std::to_string(info));
}

}  // namespace

void use_one_thread() {
#if defined(EMBGEOM_SCIPY_OPENBLAS)
    scipy_openblas_set_num_threads(1);
#elif defined(__GNUC__)
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
#endif
}

std::string name() {
    const std::string_view config = openblas_config();
    if (config.empty()) return EMBGEOM_BLAS_LIBRARY;
    // The configuration begins with the library's name and version.
    return std::string(config.substr(0, config.find(' ', config.find(' ') + 1))) + " " + openblas_core();
}

// LAPACK is column-major: what is row-major here reads there as its transpose. So A and B change places
// in a product, and the lower triangle here is the upper one there.

void multiply_nt(std::size_t m, std::size_t n, std::size_t k, const float* a, std::size_t lda, const float* b,
                 std::size_t ldb, float beta, float* c, std::size_t ldc) {
    multiply("T", "N", EMBGEOM_BLAS_NAME(sgemm_), m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void multiply_nt(std::size_t m, std::size_t n, std::size_t k, const double* a, std::size_t lda,
                 const double* b, std::size_t ldb, double beta, double* c, std::size_t ldc) {
    multiply("T", "N", EMBGEOM_BLAS_NAME(dgemm_), m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void multiply_tn(std::size_t m, std::size_t n, std::size_t k, const float* a, std::size_t lda, const float* b,
                 std::size_t ldb, float beta, float* c, std::size_t ldc) {
    multiply("N", "T", EMBGEOM_BLAS_NAME(sgemm_), m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void multiply_tn(std::size_t m, std::size_t n, std::size_t k, const double* a, std::size_t lda,
                 const double* b, std::size_t ldb, double beta, double* c, std::size_t ldc) {
    multiply("N", "T", EMBGEOM_BLAS_NAME(dgemm_), m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void gram_of_columns(std::size_t n, std::size_t k, const float* a, std::size_t lda, float beta, float* c,
                     std::size_t ldc) {
    gram("N", EMBGEOM_BLAS_NAME(ssyrk_), n, k, a, lda, beta, c, ldc);
}

void gram_of_columns(std::size_t n, std::size_t k, const double* a, std::size_t lda, double beta, double* c,
                     std::size_t ldc) {
    gram("N", EMBGEOM_BLAS_NAME(dsyrk_), n, k, a, lda, beta, c, ldc);
}

void gram_of_rows(std::size_t n, std::size_t k, const float* a, std::size_t lda, float beta, float* c,
                  std::size_t ldc) {
    gram("T", EMBGEOM_BLAS_NAME(ssyrk_), n, k, a, lda, beta, c, ldc);
}

void gram_of_rows(std::size_t n, std::size_t k, const double* a, std::size_t lda, double beta, double* c,
                  std::size_t ldc) {
    gram("T", EMBGEOM_BLAS_NAME(dsyrk_), n, k, a, lda, beta, c, ldc);
}

void subtract_products(std::size_t n, std::size_t k, const float* a, std::size_t lda, const float* b,
                       std::size_t ldb, float* c, std::size_t ldc) {
    const Stay stay;
    const blas_int order = to_int(n), depth = to_int(k);
    const blas_int a_stride = to_int(lda), b_stride = to_int(ldb), c_stride = to_int(ldc);
    const float minus = -1.0F, one = 1.0F;
    EMBGEOM_BLAS_NAME(ssyr2k_)
    ("U", "N", &order, &depth, &minus, a, &a_stride, b, &b_stride, &one, c, &c_stride, 1, 1);
}

bool solve_positive(std::size_t n, double* c, double* b) {
    const Stay stay;
    const blas_int order = to_int(n), one = 1;
    blas_int info = 0;
    EMBGEOM_BLAS_NAME(dposv_)("U", &order, &one, c, &order, b, &order, &info, 1);
    if (info < 0) throw_lapack("dposv", info);
    return info == 0;
}

std::size_t semidefinite_rank(std::size_t n, double* c, double tolerance, std::vector<double>& work) {
    const Stay stay;
    const blas_int order = to_int(n);
    blas_int rank = 0, info = 0;
    std::vector<blas_int> pivots(n);
    if (work.size() < 2 * n) work.resize(2 * n);
    EMBGEOM_BLAS_NAME(dpstrf_)
    ("U", &order, c, &order, pivots.data(), &rank, &tolerance, work.data(), &info, 1);
    if (info < 0) throw_lapack("dpstrf", info);
    return static_cast<std::size_t>(rank);
}

void eigenvalues(std::size_t n, double* c, double* values, std::vector<double>& work) {
    const Stay stay;
    const blas_int order = to_int(n);
    blas_int info = 0, integer_work = 0;
    const blas_int one = 1;
    // The reduction to tridiagonal form is blocked when it gets this much room.
    constexpr std::size_t block = 64;
    if (work.size() < (block + 2) * n + 1) work.resize((block + 2) * n + 1);
    const blas_int length = to_int(work.size());
    EMBGEOM_BLAS_NAME(dsyevd_)
    ("N", "U", &order, c, &order, values, work.data(), &length, &integer_work, &one, &info, 1, 1);
    if (info != 0) throw_lapack("dsyevd", info);
}

void tridiagonal_form(std::size_t n, float* c, float* diagonal, float* off_diagonal,
                      std::vector<float>& work) {
    const Stay stay;
    const blas_int order = to_int(n);
    blas_int info = 0;
    // Room for the factors of the reflections, and for the reduction to be blocked.
    constexpr std::size_t block = 64;
    if (work.size() < (block + 1) * n) work.resize((block + 1) * n);
    const blas_int length = to_int(block * n);
    EMBGEOM_BLAS_NAME(ssytrd_)
    ("U", &order, c, &order, diagonal, off_diagonal, work.data(), work.data() + n, &length, &info, 1);
    if (info != 0) throw_lapack("ssytrd", info);
}

void tridiagonal_eigenvalues(std::size_t n, double* diagonal, double* off_diagonal) {
    const Stay stay;
    const blas_int order = to_int(n);
    blas_int info = 0;
    EMBGEOM_BLAS_NAME(dsterf_)(&order, diagonal, off_diagonal, &info);
    if (info != 0) throw_lapack("dsterf", info);
}

}  // namespace embgeom::blas
