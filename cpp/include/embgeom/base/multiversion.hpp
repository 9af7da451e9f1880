#pragma once

// Marks a loop that is compiled once for each level of the x86-64 instruction set; the loader takes the best
// version that the processor can run. The wheel as a whole is built for the base level. Sanitizers cannot
// start before the loader chooses, so their builds define EMBGEOM_SINGLE_VERSION. Clang names levels from
// version 17 on, and single features from version 14 on; fused multiply-adds, which make the difference, are
// switched off (see CMakeLists.txt). A build with EMBGEOM_AVX512=OFF defines EMBGEOM_NO_AVX512 and shows on
// any processor what those without AVX-512 do.
#if !defined(__x86_64__) || !defined(__ELF__) || defined(EMBGEOM_SINGLE_VERSION)
#define EMBGEOM_MULTIVERSION
#elif defined(__clang__) && __clang_major__ < 14
#define EMBGEOM_MULTIVERSION
#elif defined(__clang__) && __clang_major__ < 17 && defined(EMBGEOM_NO_AVX512)
#define EMBGEOM_MULTIVERSION __attribute__((target_clones("default", "avx2")))
#elif defined(__clang__) && __clang_major__ < 17
#define EMBGEOM_MULTIVERSION __attribute__((target_clones("default", "avx2", "avx512f")))
#elif defined(__GNUC__) && defined(EMBGEOM_NO_AVX512)
#define EMBGEOM_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3")))
#elif defined(__GNUC__)
#define EMBGEOM_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define EMBGEOM_MULTIVERSION
#endif

// The same where a loop is written out for AVX2 with fused multiply-add, because compilers do not vectorize
// it well: EMBGEOM_AVX2 marks such a function, and have_avx2() says whether it may be called; the same for
// EMBGEOM_AVX512 and have_avx512(), which is also for files that are compiled for AVX-512. So that all
// branches are tested on a processor that has everything, a build for the thread sanitizer defines
// EMBGEOM_PORTABLE, and one of a single version stays with AVX2.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(EMBGEOM_PORTABLE)
#define EMBGEOM_HAS_AVX2_CODE
#define EMBGEOM_AVX2 __attribute__((target("avx2,fma")))
#define EMBGEOM_AVX512 __attribute__((target("avx512f,avx2,fma")))
namespace embgeom {
inline bool have_avx2() {
    static const bool have = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    return have;
}
inline bool have_avx512() {
#if defined(EMBGEOM_SINGLE_VERSION) || defined(EMBGEOM_NO_AVX512)
    return false;
#else
    static const bool have = have_avx2() && __builtin_cpu_supports("avx512f") != 0;
    return have;
#endif
}
}  // namespace embgeom
#endif

namespace embgeom {
// The widest instructions that this build uses on this processor.
inline const char* instruction_set() {
#if defined(EMBGEOM_HAS_AVX2_CODE)
    if (have_avx512()) return "avx512";
    if (have_avx2()) return "avx2";
#endif
    return "base";
}
}  // namespace embgeom
