#include "embgeom/base/parallel.hpp"

#include <algorithm>
#include <cfenv>
#include <chrono>
#include <exception>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "embgeom/base/arithmetic.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if __has_include(<pthread.h>)
#include <pthread.h>
#endif
#if __has_include(<sys/resource.h>)
#include <sys/resource.h>
#endif

namespace embgeom {
namespace {

// Thrown through a body by Worker::checkpoint once another worker has failed; it never leaves this file.
struct Stopped {};

// The default rounding mode and subnormal numbers, whatever the thread has set: torch, for one, can make its
// thread flush subnormal numbers to zero, and results would then depend on which thread computed them.
class DefaultFloatingPoint {
  public:
    DefaultFloatingPoint() {
        std::fegetenv(&before_);
        std::fesetenv(FE_DFL_ENV);
    }
    DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
    DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;
    ~DefaultFloatingPoint() { std::fesetenv(&before_); }

  private:
    std::fenv_t before_{};
};

struct Region {
    const char* phase;
    std::size_t tasks;
    Monitor& monitor;
    const std::function<void(std::size_t, const Worker&)>& body;
    std::atomic<std::size_t> next{0};
    std::atomic<std::size_t> done{0};
    std::atomic<bool> stop{false};
    std::mutex error_mutex{};
    std::exception_ptr error{};

    // The end of the loop is reported once, after it.
    void watch() {
        const std::size_t so_far = done.load();
        if (so_far < tasks) monitor.report(phase, so_far, tasks);
    }

    // The last tasks of other workers may be long, and nobody else notices Ctrl-C meanwhile.
    void wait_for_others(const Worker& worker) const {
        for (int round = 0; done.load() < tasks; ++round) {
            worker.checkpoint();
            if (round < 100) {
                std::this_thread::yield();
            } else {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        }
    }

    void work(int id) noexcept {
        const DefaultFloatingPoint environment;
        try {
            const Worker worker(id, stop, id == 0 ? [this] { watch(); } : std::function<void()>());
            for (;;) {
                worker.checkpoint();
                const std::size_t task = next.fetch_add(1);
                if (task >= tasks) break;
                body(task, worker);
                done.fetch_add(1);
            }
            if (id == 0) wait_for_others(worker);
        } catch (const Stopped&) {
            // The worker that set the flag has recorded its exception.
        } catch (...) {
            const std::lock_guard lock(error_mutex);
            if (!error) error = std::current_exception();
            stop = true;
        }
    }
};

// The loops that are running, for abandon_loops. After it, only the thread that called it may start new ones.
std::mutex loops_mutex;
std::set<Region*> loops;
bool exiting = false;
std::thread::id exiting_thread;

[[noreturn]] void stay_until_exit() {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// Registers a loop while it runs. A thread whose loop was abandoned, or starts too late, does not return.
class Running {
  public:
    explicit Running(Region& region) : region_(region) {
        std::unique_lock lock(loops_mutex);
        if (abandoned()) {
            lock.unlock();
            stay_until_exit();
        }
        loops.insert(&region);
    }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    ~Running() {
        std::unique_lock lock(loops_mutex);
        loops.erase(&region_);
        if (abandoned()) {
            lock.unlock();
            stay_until_exit();
        }
    }

  private:
    static bool abandoned() { return exiting && exiting_thread != std::this_thread::get_id(); }

    Region& region_;
};

// A forked child has one thread and none of its parent's loops; the lock must not be held by a thread that
// does not exist there.
std::atomic<bool> forked{false};

#if __has_include(<pthread.h>)
[[maybe_unused]] const int fork_handlers =
    pthread_atfork([] { loops_mutex.lock(); }, [] { loops_mutex.unlock(); },
                   [] {
                       forked = true;
                       loops.clear();
                       loops_mutex.unlock();
                   });
#endif

// Worker 0 is the calling thread, so that the monitor may use what belongs to that thread.
void run_on_plain_threads(Region& region, int threads) {
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(threads - 1));
    try {
        for (int id = 1; id < threads; ++id) others.emplace_back([&region, id] { region.work(id); });
    } catch (const std::exception&) {
        // Fewer threads than asked for: the tasks are handed out one at a time, so those that run do
        // them all.
    }
    region.work(0);
    for (auto& thread : others) thread.join();
}

#if defined(_OPENMP)

bool memory_is_limited() {
#if __has_include(<sys/resource.h>)
    rlimit limit{};
    return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
#else
    return false;
#endif
}

// The thread pool of GNU's OpenMP does not survive fork(): a child that enters a region waits for threads
// that it does not have. And where OpenMP cannot start a thread, as under a memory limit, it ends the
// process. Plain threads do neither.
void run_team(Region& region, int threads) {
    if (forked || memory_is_limited()) {
        run_on_plain_threads(region, threads);
        return;
    }
#pragma omp parallel num_threads(threads)
    region.work(omp_get_thread_num());
}

#else

void run_team(Region& region, int threads) {
    run_on_plain_threads(region, threads);
}

#endif

}  // namespace

void Worker::checkpoint() const {
    if (stop_.load(std::memory_order_relaxed)) throw Stopped{};
    if (watch_) watch_();
}

int useful_workers(std::size_t tasks, int threads, std::size_t bytes) {
    constexpr std::size_t of_all = std::size_t{256} << 20U;
    const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
    const std::size_t most = std::max(cores, of_all / std::max<std::size_t>(bytes, 1));
    return static_cast<int>(
        std::clamp<std::size_t>(tasks, 1, std::min(most, static_cast<std::size_t>(threads))));
}

void parallel_for(const char* phase, std::size_t tasks, int threads, Monitor& monitor,
                  const std::function<void(std::size_t, const Worker&)>& body) {
    Region region{.phase = phase, .tasks = tasks, .monitor = monitor, .body = body};
    const auto team = static_cast<int>(std::min(tasks, static_cast<std::size_t>(threads)));
    {
        const Running running(region);
        if (team <= 1) {
            region.work(0);
        } else {
            run_team(region, team);
        }
    }
    if (region.error) std::rethrow_exception(region.error);
    monitor.report(phase, tasks, tasks);
}

void abandon_loops() {
    std::unique_lock lock(loops_mutex);
    exiting = true;
    exiting_thread = std::this_thread::get_id();
    for (Region* region : loops) region->stop = true;
    for (int round = 0; round < 500 && !loops.empty(); ++round) {
        lock.unlock();
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        lock.lock();
    }
}

void parallel_ranges(const char* phase, std::size_t items, std::size_t grain, int threads, Monitor& monitor,
                     const std::function<void(std::size_t, std::size_t, const Worker&)>& body) {
    parallel_for(phase, divide_up(items, grain), threads, monitor,
                 [&](std::size_t task, const Worker& worker) {
                     const std::size_t begin = task * grain;
                     body(begin, std::min(items, begin + grain), worker);
                 });
}

}  // namespace embgeom
