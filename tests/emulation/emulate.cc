/* Runs the kernel ENTRY of the file SOURCE on the host. Threads are fibers; each runs until it rests, warps in
 * random order, blocks too. */
#ifndef SHARED_BYTES
#define SHARED_BYTES 0 /* awq_dequant has none but its own */
#endif
#include SOURCE

#include <ucontext.h>

enum rest { RUNS, IN_WARP, AT_BARRIER, ENDED };

struct fiber {
    ucontext_t context;
    std::vector<char> stack;
    enum rest rest;
    bool value;
    std::vector<std::vector<copy>> groups;
};

index3 threadIdx, blockIdx;
thread_local uint4 shared_memory[SHARED_BYTES / 16 + 1];
bool copies_late;
long bank_conflicts;

static std::vector<fiber> fibers;
static std::vector<exchange> exchanged;
static ucontext_t scheduler;
static struct arguments arguments_of_launch;
static bool barrier_value;
static unsigned random_state;

static unsigned below(unsigned limit) {
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % limit;
}

static void rest(enum rest why) {
    struct fiber &fiber = fibers[threadIdx.x];
    fiber.rest = why;
    swapcontext(&fiber.context, &scheduler);
}
void rest_at_barrier() {
    rest(AT_BARRIER);
}
bool rest_at_barrier_or(bool value) {
    fibers[threadIdx.x].value = value;
    rest(AT_BARRIER);
    return barrier_value;
}
void rest_in_warp() {
    rest(IN_WARP);
}
const struct exchange *exchange_words(const struct exchange &own) {
    exchanged[threadIdx.x] = own;
    rest(IN_WARP);
    return &exchanged[threadIdx.x / 32 * 32];
}
std::vector<std::vector<copy>> &copy_groups() {
    return fibers[threadIdx.x].groups;
}

static void run_entry() {
    ENTRY(arguments_of_launch);
    rest(ENDED);
}

static void start(struct fiber &fiber) {
    fiber.rest = RUNS;
    fiber.value = false;
    fiber.groups.assign(1, {});
    fiber.stack.resize(1 << 16);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_entry, 0);
}

/* Runs a warp until all of it rests at a barrier or has ended. */
static void run_warp(unsigned warp) {
    for (enum rest together = RUNS; together <= IN_WARP;) {
        for (unsigned lane = 0; lane < 32; lane++) {
            threadIdx.x = warp * 32 + lane;
            swapcontext(&scheduler, &fibers[threadIdx.x].context);
        }
        together = fibers[warp * 32].rest;
        for (unsigned lane = 1; lane < 32; lane++)
            if (fibers[warp * 32 + lane].rest != together) broken("a warp that parts at a barrier or an instruction");
    }
}

static void run_block() {
    std::vector<unsigned> warps(fibers.size() / 32);
    memset(shared_memory, 0xff, sizeof shared_memory);
    for (struct fiber &fiber : fibers) start(fiber);
    for (unsigned i = 0; i < warps.size(); i++) warps[i] = i;
    for (enum rest together = RUNS; together != ENDED;) {
        for (unsigned i = 0; i < warps.size(); i++) {
            std::swap(warps[i], warps[i + below((unsigned)warps.size() - i)]);
            run_warp(warps[i]);
        }
        together = fibers[0].rest;
        barrier_value = false;
        for (struct fiber &fiber : fibers) {
            if (fiber.rest != together) broken("a barrier that not all threads reach");
            barrier_value |= fiber.value;
            fiber.value = false;
        }
    }
}

/* As kernels/device.h has it. */
struct device_grid {
    unsigned blocks[3], threads, cluster;
    bool overlaps;
};

/* Runs a launch; returns the bank conflicts that ldmatrix met. */
extern "C" long emulate(const struct arguments *arguments, const struct device_grid *grid, bool late, unsigned seed) {
    std::vector<index3> blocks;
    arguments_of_launch = *arguments;
    copies_late = late;
    random_state = seed;
    bank_conflicts = 0;
    fibers.resize(grid->threads);
    exchanged.resize(grid->threads);
    for (unsigned y = 0; y < grid->blocks[1]; y++)
        for (unsigned x = 0; x < grid->blocks[0]; x++) blocks.push_back({x, y, 0});
    for (unsigned i = 0; i < blocks.size(); i++) {
        std::swap(blocks[i], blocks[i + below((unsigned)blocks.size() - i)]);
        blockIdx = blocks[i];
        run_block();
    }
    return bank_conflicts;
}
