#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include "embgeom/base/arithmetic.hpp"

namespace embgeom {

constexpr std::size_t line_bytes = 64, large_page = std::size_t{2} << 20U;
constexpr std::size_t floats_in_line = line_bytes / sizeof(float);
constexpr std::size_t doubles_in_line = line_bytes / sizeof(double);

inline void prefetch(const float* values, std::size_t count) {
    for (std::size_t l = 0; l < count; l += floats_in_line) __builtin_prefetch(values + l);
}

// Asks the system to back `memory` with large pages: with pages of 4 KiB, kernels that go back and forth over
// many rows wait for address translation. Advice only; where it is not taken, nothing changes.
inline void ask_for_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(MADV_HUGEPAGE)
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    const auto begin = round_up(address, large_page);
    const auto end = (address + bytes) / large_page * large_page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Memory that begins at a cache line, so that no vector register is loaded across two of them; from the size
// of a large page on, at such a page.
template <class T>
struct CacheLineAllocator {
    using value_type = T;

    CacheLineAllocator() = default;
    template <class U>
    explicit CacheLineAllocator(const CacheLineAllocator<U>&) {}

    T* allocate(std::size_t count) {
        const std::size_t bytes = count * sizeof(T);
        void* memory = ::operator new(bytes, alignment(count));
        ask_for_large_pages(memory, bytes);
        return static_cast<T*>(memory);
    }
    void deallocate(T* memory, std::size_t count) { ::operator delete(memory, alignment(count)); }

    friend bool operator==(const CacheLineAllocator&, const CacheLineAllocator&) { return true; }

  private:
    static std::align_val_t alignment(std::size_t count) {
        return std::align_val_t{count * sizeof(T) < large_page ? line_bytes : large_page};
    }
};

template <class T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

}  // namespace embgeom
