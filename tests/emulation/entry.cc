/* The kernel ENTRY of the file SOURCE, which takes ARGUMENTS, as a launch that emulate.cc runs. */
#ifndef SHARED_BYTES
#define SHARED_BYTES 0 /* it has none but its own */
#endif
#include SOURCE

thread_local uint4 shared_memory[SHARED_BYTES / 16 + 1];
static ARGUMENTS arguments_of_launch;

static void run_entry() {
    ENTRY(arguments_of_launch);
}

extern "C" long emulate(const ARGUMENTS *arguments, const struct device_grid *grid, bool late, unsigned seed) {
    arguments_of_launch = *arguments;
    return run_launch({run_entry, (char *)shared_memory, SHARED_BYTES}, grid, late, seed);
}
