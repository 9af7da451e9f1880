#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

#include "embgeom/base/parallel.hpp"

namespace embgeom::bindings {

namespace py = pybind11;

// Watches a kernel that runs without the interpreter's lock: at most ten times a second it takes the lock,
// lets pending signals (Ctrl-C) raise, and calls the progress callable `progress(phase, done, total)`, if
// there is one.
class PythonMonitor : public Monitor {
  public:
    explicit PythonMonitor(py::object progress) : progress_(std::move(progress)) {}

    void report(const char* phase, std::size_t done, std::size_t total) override {
        const auto now = std::chrono::steady_clock::now();
        // The end of a phase is always reported, so that a display can close it.
        if (now - last_ < std::chrono::milliseconds(100) && done < total) return;
        last_ = now;
        wait_if_finalizing();
        const py::gil_scoped_acquire lock;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (!progress_.is_none()) progress_(phase, done, total);
    }

    // A daemon thread may still compute while the interpreter shuts down, when the lock can no longer be
    // taken: that would unwind this thread through frames that do not allow it, so the thread waits for the
    // process to end.
    static void wait_if_finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
        const auto finalizing = [] { return Py_IsFinalizing() != 0; };
#else
        const auto finalizing = [] { return _Py_IsFinalizing() != 0; };
#endif
        while (finalizing()) std::this_thread::sleep_for(std::chrono::seconds(1));
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
    struct Leave {
        ~Leave() { PythonMonitor::wait_if_finalizing(); }
    };
    const Leave before_taking_the_lock_again;
    return kernel(monitor);
}

}  // namespace embgeom::bindings
