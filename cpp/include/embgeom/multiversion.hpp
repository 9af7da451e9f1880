#pragma once

// Marks a loop that is compiled once for each level of the x86-64 instruction set; the loader takes the
// best one that the processor has. The wheel as a whole is built for the base level. Sanitizers cannot
// start before the loader chooses, so their builds define EMBGEOM_SINGLE_VERSION.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(EMBGEOM_SINGLE_VERSION)
#define EMBGEOM_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define EMBGEOM_MULTIVERSION
#endif
