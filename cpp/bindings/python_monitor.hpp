#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <string>

#include "embgeom/parallel.hpp"

namespace embgeom::bindings {

namespace py = pybind11;

// Looks after a kernel that runs without the interpreter's lock: at most ten times a second it takes
// the lock, lets pending signals (Ctrl-C) raise, and tells the progress callable `progress(phase, done,
// total)`, if there is one.
class PythonMonitor : public Monitor {
  public:
    explicit PythonMonitor(py::object progress) : progress_(std::move(progress)) {}

    void report(const char* phase, std::size_t done, std::size_t total) override {
        const auto now = std::chrono::steady_clock::now();
        // The end of a phase is always told, so that a display can close it.
        if (now - last_ < std::chrono::milliseconds(100) && done < total) return;
        last_ = now;
        const py::gil_scoped_acquire lock;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (!progress_.is_none()) progress_(phase, done, total);
    }

  private:
    py::object progress_;
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Runs a kernel without the interpreter's lock.
template <class Kernel>
auto run_unlocked(const py::object& progress, Kernel kernel) {
    PythonMonitor monitor(progress);
    const py::gil_scoped_release unlocked;
    return kernel(monitor);
}

}  // namespace embgeom::bindings
