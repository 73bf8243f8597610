#include "bench/cbench.h"

#include <benchmark/benchmark.h>

#include <regex.h>
#include <string>

static const volatile sig_atomic_t *stop;

// No exception may cross into C: one that is thrown in `body` (out of memory) ends the program here.
template <class Body> static auto contain(Body body) noexcept {
    return body();
}

static benchmark::State &google(cbench_state *state) {
    return *reinterpret_cast<benchmark::State *>(state);
}

void cbench_register(const char *name, cbench_function *function, void *data) {
    contain([=] {
        auto run = [=](benchmark::State &state) {
            if (stop && *stop)
                state.SkipWithError("interrupted");
            else
                function(reinterpret_cast<cbench_state *>(&state), data);
        };
        benchmark::RegisterBenchmark(name, run)->Unit(benchmark::kMicrosecond)->UseManualTime()->Iterations(1);
    });
}

bool cbench_keep_running(cbench_state *state) {
    return contain([=] { return google(state).KeepRunning(); });
}

void cbench_set_iteration_time(cbench_state *state, double seconds) {
    contain([=] { google(state).SetIterationTime(seconds); });
}

void cbench_set_counter(cbench_state *state, const char *name, double value) {
    contain([=] { google(state).counters[name] = value; });
}

void cbench_set_label(cbench_state *state, const char *label) {
    contain([=] { google(state).SetLabel(label); });
}

void cbench_skip_with_error(cbench_state *state, const char *message) {
    contain([=] { google(state).SkipWithError(message); });
}

void cbench_add_context(const char *key, const char *value) {
    contain([=] { benchmark::AddCustomContext(key, value); });
}

// As Google Benchmark reads it. A filter that is no regular expression selects nothing, and it says so.
bool cbench_selects(const char *name) {
    return contain([=] {
        std::string filter = benchmark::GetBenchmarkFilter();
        if (filter.empty() || filter == "all") return true;
        bool others = filter[0] == '-';
        regex_t pattern;
        if (regcomp(&pattern, filter.c_str() + others, REG_EXTENDED | REG_NOSUB)) return false;
        bool found = !regexec(&pattern, (std::string(name) + CBENCH_ENDING).c_str(), 0, nullptr, 0);
        regfree(&pattern);
        return found != others;
    });
}

void cbench_initialize(int *argc, char **argv) {
    contain([=] { benchmark::Initialize(argc, argv); });
}

void cbench_stop_at(const volatile sig_atomic_t *flag) {
    stop = flag;
}

int cbench_run(void) {
    return contain([] { return static_cast<int>(benchmark::RunSpecifiedBenchmarks()); });
}
