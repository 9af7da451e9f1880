#pragma once

#include <atomic>
#include <cstddef>
#include <functional>

namespace embgeom {

// Watches a long computation from outside. Only the thread that called the kernel calls it, between
// pieces of work that take well under a second, so it may touch the interpreter. An exception it throws
// stops every worker.
class Monitor {
  public:
    virtual ~Monitor() = default;
    virtual void report(const char* phase, std::size_t done, std::size_t total) = 0;
};

// Reports many parallel loops, each over a slab of rows, as one that counts rows.
class SlabMonitor : public Monitor {
  public:
    SlabMonitor(Monitor& monitor, std::size_t rows) : monitor_(monitor), rows_(rows) {}

    void report(const char*, std::size_t, std::size_t) override { monitor_.report("multiply", done_, rows_); }
    void advance(std::size_t rows) {
        done_ += rows;
        monitor_.report("multiply", done_, rows_);
    }

  private:
    Monitor& monitor_;
    std::size_t rows_, done_ = 0;
};

// What the body of a parallel loop knows about where it runs: on which worker, whose scratch memory it uses.
class Worker {
  public:
    Worker(int id, const std::atomic<bool>& stop, std::function<void()> watch)
        : id_(id), stop_(stop), watch_(std::move(watch)) {}

    int id() const { return id_; }

    // To be called every few tens of milliseconds inside a long task; leaves the task when the loop
    // must stop.
    void checkpoint() const;

  private:
    int id_;
    const std::atomic<bool>& stop_;
    std::function<void()> watch_;
};

// The number of workers for a loop over `tasks` in which each keeps `bytes` of scratch: at most `threads`,
// and beyond one for each core only as many as 256 MiB hold. No result depends on it.
int useful_workers(std::size_t tasks, int threads, std::size_t bytes);

// Runs body(task, worker) once for each task in [0, tasks), on at most `threads` workers with ids in
// [0, threads). Tasks are handed out in order, one at a time. The first exception stops the loop and is
// rethrown here.
void parallel_for(const char* phase, std::size_t tasks, int threads, Monitor& monitor,
                  const std::function<void(std::size_t, const Worker&)>& body);

// The same over ranges [begin, end) of at most `grain` consecutive items.
void parallel_ranges(const char* phase, std::size_t items, std::size_t grain, int threads, Monitor& monitor,
                     const std::function<void(std::size_t, std::size_t, const Worker&)>& body);

// Stops the loops that other threads are running and waits for them (a few seconds at most), because the
// process is about to exit and the libraries that the loops call are being unloaded. Those threads block
// until it has exited.
void abandon_loops();

}  // namespace embgeom
