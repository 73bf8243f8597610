/* Runs a launch on the host. Threads are fibers; each runs until it rests, warps in random order, blocks and clusters
 * too. The blocks of a cluster take turns: the one that runs has its shared memory in `launched.shared`, the others
 * have theirs put by. So do the clusters of a small grid, as if the card had room for all; those of a large one run one
 * after the other. */
#include "cuda/ptx.cuh"

#include <ucontext.h>

enum rest { RUNS, IN_WARP, AT_BARRIER, AT_CLUSTER, AT_TRANSFER, AT_PHASE, AT_COUNTER, ENDED };

/* Blocks of a grid that all run at a time. */
enum { SMALL_GRID = 16 };

struct fiber {
    ucontext_t context;
    std::vector<char> stack;
    enum rest rest;
    unsigned barrier, barrier_threads; /* where it rests AT_BARRIER */
    bool value;
    unsigned arrivals, waits; /* at the cluster's barrier */
    unsigned transfer;        /* where it rests AT_TRANSFER, or AT_PHASE */
    unsigned parity;
    const unsigned *counter; /* where it rests AT_COUNTER, until this is reached */
    unsigned count;
    std::vector<std::vector<copy>> groups;
    std::vector<std::vector<product>> products;
    std::vector<remote_store> stores;
};

struct block {
    index3 index;
    bool entered;
    std::vector<fiber> fibers;
    std::vector<char> shared;
    std::vector<box> boxes;
};

index3 threadIdx, blockIdx, gridDim;
struct launched launched;
bool copies_late;
long bank_conflicts;

static std::vector<block> cluster;               /* the one that runs */
static std::vector<std::vector<block>> clusters; /* those that take turns with it, its own place empty */
static struct block *running;
static std::vector<exchange> exchanged;
static ucontext_t scheduler;
static bool barrier_value;
static unsigned random_state;

static unsigned below(unsigned limit) {
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % limit;
}
template <class T> static void shuffle(std::vector<T> &items) {
    for (unsigned i = 0; i < items.size(); i++) std::swap(items[i], items[i + below((unsigned)items.size() - i)]);
}
static std::vector<unsigned> shuffled(size_t count) {
    std::vector<unsigned> numbers(count);
    for (unsigned i = 0; i < count; i++) numbers[i] = i;
    shuffle(numbers);
    return numbers;
}

/* --- what the fibers call --- */

static struct fiber &own() {
    return running->fibers[threadIdx.x];
}
static void rest(enum rest why) {
    struct fiber &fiber = own();
    fiber.rest = why;
    swapcontext(&fiber.context, &scheduler);
}
bool rest_at_barrier(unsigned barrier, unsigned threads, bool value) {
    own().barrier = barrier;
    own().barrier_threads = threads ? threads : (unsigned)running->fibers.size();
    own().value = value;
    rest(AT_BARRIER);
    return barrier_value;
}
void rest_in_warp() {
    rest(IN_WARP);
}
const struct exchange *exchange_words(const struct exchange &words) {
    exchanged[threadIdx.x] = words;
    rest(IN_WARP);
    return &exchanged[threadIdx.x / 32 * 32];
}
std::vector<std::vector<copy>> &copy_groups() {
    return own().groups;
}
std::vector<std::vector<product>> &product_groups() {
    return own().products;
}

static void perform(const struct remote_store &store) {
    const unsigned rank = store.to >> 24, address = store.to & 0xffffff;
    if (rank >= cluster.size()) broken("a store to a block that the cluster does not have");
    struct block &block = cluster[rank];
    bool ended = true;
    for (struct fiber &fiber : block.fibers) ended &= fiber.rest == ENDED;
    if (!block.entered || ended) broken("a store to a block that has not started or has ended");
    shared_at(address, sizeof store.value);
    char *memory = &block == running ? launched.shared : block.shared.data();
    memcpy(memory + address, &store.value, sizeof store.value);
    char *transfer = memory + (shared_at(store.transfer & 0xffffff, 8) - launched.shared);
    unsigned left;
    memcpy(&left, transfer, 4);
    if (left < sizeof store.value) broken("a transfer of more bytes than were announced");
    left -= (unsigned)sizeof store.value;
    memcpy(transfer, &left, 4);
}
static void perform_stores() {
    for (const struct remote_store &store : own().stores) perform(store);
    own().stores.clear();
}
void store_to_cluster(const struct remote_store &store) {
    if (copies_late)
        own().stores.push_back(store);
    else
        perform(store);
}
void cluster_arrive() {
    if (own().arrivals++ != own().waits) broken("a second arrival at the cluster's barrier without a wait");
}
void cluster_wait() {
    if (own().waits++ == own().arrivals) broken("a wait at the cluster's barrier without an arrival");
    rest(AT_CLUSTER);
}

void transfer_wait(unsigned transfer) {
    perform_stores();
    own().transfer = transfer;
    rest(AT_TRANSFER);
}

std::vector<box> &boxes() {
    return running->boxes;
}
unsigned own_rank() {
    return (unsigned)(running - cluster.data());
}
char *memory_of(unsigned rank) {
    if (rank >= cluster.size() || !cluster[rank].entered) broken("the memory of a block that has not started");
    return &cluster[rank] == running ? launched.shared : cluster[rank].shared.data();
}
void rest_at_phase(unsigned barrier, unsigned parity) {
    own().transfer = barrier;
    own().parity = parity;
    rest(AT_PHASE);
}

void rest_at_counter(const unsigned *counter, unsigned count) {
    own().counter = counter;
    own().count = count;
    rest(AT_COUNTER);
}

/* --- the scheduler --- */

static void run_entry() {
    launched.entry();
    perform_stores();
    if (own().arrivals != own().waits) broken("an arrival at the cluster's barrier without a wait");
    rest(ENDED);
}

static void start(struct fiber &fiber) {
    fiber.rest = RUNS;
    fiber.value = false;
    fiber.arrivals = fiber.waits = 0;
    fiber.groups.assign(1, {});
    fiber.products.assign(1, {});
    fiber.stores.clear();
    fiber.stack.resize(1 << 16);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_entry, 0);
}

/* Runs a warp until all of it rests at a barrier or has ended. */
static void run_warp(unsigned warp) {
    std::vector<fiber> &fibers = running->fibers;
    for (enum rest together = RUNS; together <= IN_WARP;) {
        for (unsigned lane = 0; lane < 32; lane++) {
            threadIdx.x = warp * 32 + lane;
            swapcontext(&scheduler, &fibers[threadIdx.x].context);
        }
        together = fibers[warp * 32].rest;
        for (unsigned lane = 1; lane < 32; lane++) {
            const struct fiber &first = fibers[warp * 32], &fiber = fibers[warp * 32 + lane];
            if (fiber.rest != together || (together == AT_BARRIER && fiber.barrier != first.barrier))
                broken("a warp that parts at a barrier or an instruction");
        }
    }
}

/* Runs every warp that can. */
static bool run_warps() {
    bool ran = false;
    for (unsigned warp : shuffled(running->fibers.size() / 32)) {
        if (running->fibers[warp * 32].rest != RUNS) continue;
        run_warp(warp);
        ran = true;
    }
    return ran;
}

/* Lets go the fibers at one barrier of the block if all it waits for are there. */
static bool open_barrier() {
    for (struct fiber &first : running->fibers) {
        if (first.rest != AT_BARRIER) continue;
        unsigned there = 0;
        barrier_value = false;
        for (struct fiber &fiber : running->fibers) {
            if (fiber.rest != AT_BARRIER || fiber.barrier != first.barrier) continue;
            if (fiber.barrier_threads != first.barrier_threads) broken("a barrier of two sizes");
            there++, barrier_value |= fiber.value;
        }
        if (there != first.barrier_threads) continue;
        const unsigned barrier = first.barrier;
        for (struct fiber &fiber : running->fibers)
            if (fiber.rest == AT_BARRIER && fiber.barrier == barrier) fiber.rest = RUNS;
        return true;
    }
    return false;
}

/* The same for the cluster's barrier; who has ended has arrived. */
static bool open_cluster() {
    bool opened = false;
    unsigned arrivals = ~0u;
    for (struct block &block : cluster)
        for (struct fiber &fiber : block.fibers)
            if (fiber.rest != ENDED) arrivals = min(arrivals, fiber.arrivals);
    for (struct block &block : cluster)
        for (struct fiber &fiber : block.fibers) {
            if (fiber.rest != AT_CLUSTER || fiber.waits > arrivals) continue;
            fiber.rest = RUNS;
            opened = true;
        }
    return opened;
}

/* The same for transfers that are complete. */
static bool open_transfers() {
    bool opened = false;
    for (struct fiber &fiber : running->fibers) {
        unsigned left = 0;
        if (fiber.rest != AT_TRANSFER) continue;
        memcpy(&left, shared_at(fiber.transfer, 8), 4);
        if (left) continue;
        fiber.rest = RUNS;
        opened = true;
    }
    return opened;
}

/* The same for phases that have ended. */
static bool open_phases() {
    bool opened = false;
    for (struct fiber &fiber : running->fibers) {
        if (fiber.rest != AT_PHASE || phase_at(fiber.transfer)->number % 2 == fiber.parity) continue;
        fiber.rest = RUNS;
        opened = true;
    }
    return opened;
}

/* The same for counters that have been reached. */
static bool open_counters() {
    bool opened = false;
    for (struct fiber &fiber : running->fibers) {
        if (fiber.rest != AT_COUNTER || *fiber.counter < fiber.count) continue;
        fiber.rest = RUNS;
        opened = true;
    }
    return opened;
}

/* Brings one box, when nothing else can go on. */
static bool bring_box() {
    std::vector<box> &boxes = running->boxes;
    if (boxes.empty()) return false;
    std::swap(boxes[below((unsigned)boxes.size())], boxes.back());
    const struct box box = boxes.back();
    boxes.pop_back();
    perform(box);
    return true;
}

/* Runs a block until all of it waits for others or has ended. */
static bool run_block(struct block &block) {
    bool ran = false;
    running = &block;
    blockIdx = block.index;
    block.entered = true;
    memcpy(launched.shared, block.shared.data(), block.shared.size());
    while (run_warps() || open_barrier() || open_transfers() || open_phases() || open_counters() || bring_box())
        ran = true;
    memcpy(block.shared.data(), launched.shared, block.shared.size());
    return ran;
}

static void start_cluster(const index3 &first) {
    for (struct block &block : cluster) {
        block.index = {first.x + (unsigned)(&block - cluster.data()), first.y, 0};
        block.entered = false;
        block.boxes.clear();
        block.shared.assign(launched.shared_bytes, (char)0xff);
        for (struct fiber &fiber : block.fibers) start(fiber);
    }
}

/* Runs a cluster until all of it waits for others or has ended. */
static bool run_cluster() {
    bool ran = false, once = true;
    for (; once; ran |= once) {
        once = false;
        for (unsigned rank : shuffled(cluster.size())) once |= run_block(cluster[rank]);
        once |= open_cluster();
    }
    return ran;
}

static void end_cluster() {
    for (struct block &block : cluster)
        for (struct fiber &fiber : block.fibers)
            if (fiber.rest != ENDED) broken("a barrier that not all threads reach, or a counter");
    for (struct block &block : cluster)
        if (!block.boxes.empty()) broken("a box that nobody waits for");
}

/* Runs clusters by turns until all have ended. */
static void run_together(const std::vector<index3> &firsts) {
    for (size_t i = 0; i < firsts.size(); i++, cluster.swap(clusters[i - 1])) {
        cluster.swap(clusters[i]);
        start_cluster(firsts[i]);
    }
    for (bool ran = true; ran;) {
        ran = false;
        for (unsigned i : shuffled(firsts.size())) {
            cluster.swap(clusters[i]);
            ran |= run_cluster();
            cluster.swap(clusters[i]);
        }
    }
    for (size_t i = 0; i < firsts.size(); i++, cluster.swap(clusters[i - 1])) {
        cluster.swap(clusters[i]);
        end_cluster();
    }
}

long run_launch(const struct launched &launch, const struct device_grid *grid, bool late, unsigned seed) {
    const unsigned size = grid->cluster ? grid->cluster : 1;
    std::vector<index3> firsts;
    launched = launch;
    gridDim = {grid->blocks[0], grid->blocks[1], grid->blocks[2]};
    copies_late = late;
    random_state = seed;
    bank_conflicts = 0;
    exchanged.resize(grid->threads);
    if (grid->blocks[0] % size) broken("a grid that clusters do not divide");
    for (unsigned y = 0; y < grid->blocks[1]; y++)
        for (unsigned x = 0; x < grid->blocks[0]; x += size) firsts.push_back({x, y, 0});
    shuffle(firsts);
    const size_t together = firsts.size() * size <= SMALL_GRID ? firsts.size() : 1;
    clusters.assign(together, {});
    for (std::vector<block> &blocks : clusters) {
        blocks.resize(size);
        for (struct block &block : blocks) block.fibers.resize(grid->threads);
    }
    for (size_t i = 0; i < firsts.size(); i += together)
        run_together({firsts.begin() + i, firsts.begin() + i + together});
    return bank_conflicts;
}
