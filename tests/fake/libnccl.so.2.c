/* NCCL as far as kernels/cuda/nccl.c uses it, of ranks whose memory is the host's: the calls of a group run when it
 * ends, the first of each rank together, then the second of each. */
#include <stdlib.h>
#include <string.h>

#include "kernels/half.h"
#include "tests/fake/fake.h"

enum { FLOAT16 = 6, SUM = 0, INVALID = 4, MOST = 4096 };

struct ncclComm {
    int rank, ranks;
};

struct fake_nccl fake;

static struct call {
    struct ncclComm *comm;
    bool sums;
    const uint16_t *from;
    uint16_t *to;
    size_t count;
} calls[MOST];
static int count, depth;

int ncclCommInitAll(struct ncclComm **comms, int ranks, const int *devices) {
    if (fake.refuses) return INVALID;
    for (int i = 0; i < ranks; i++) {
        if (devices[i] != fake.first + i) return INVALID;
        comms[i] = calloc(1, sizeof *comms[i]);
        *comms[i] = (struct ncclComm){i, ranks};
        fake.comms++;
    }
    return 0;
}

int ncclCommDestroy(struct ncclComm *comm) {
    free(comm);
    fake.comms--;
    return 0;
}

int ncclGroupStart(void) {
    depth++;
    return 0;
}

static int add(struct call call, int type) {
    if (type != FLOAT16 || depth != 1 || count == MOST) return INVALID;
    calls[count++] = call;
    return 0;
}

int ncclAllReduce(const void *from, void *to, size_t elements, int type, int op, struct ncclComm *comm, void *stream) {
    (void)stream;
    return op == SUM ? add((struct call){comm, true, from, to, elements}, type) : INVALID;
}

int ncclAllGather(const void *from, void *to, size_t elements, int type, struct ncclComm *comm, void *stream) {
    (void)stream;
    return add((struct call){comm, false, from, to, elements}, type);
}

/* The first call of a rank that has not run; NULL if there is none. */
static struct call *next(int rank) {
    for (int i = 0; i < count; i++)
        if (calls[i].comm && calls[i].comm->rank == rank) return &calls[i];
    return NULL;
}

static void run(struct call **parts, int ranks) {
    size_t elements = parts[0]->count, all = parts[0]->sums ? elements : elements * (size_t)ranks;
    uint16_t *result = malloc(2 * all);
    for (size_t i = 0; i < all; i++) {
        float sum = 0;
        for (int rank = 0; rank < ranks; rank++) sum += half_to_float(parts[rank]->from[i % elements]);
        result[i] = parts[0]->sums ? half_from_float(sum) : parts[i / elements]->from[i % elements];
    }
    for (int rank = 0; rank < ranks; rank++) memcpy(parts[rank]->to, result, 2 * all);
    free(result);
}

int ncclGroupEnd(void) {
    depth--;
    fake.groups++;
    for (struct call *first; (first = next(0));) {
        struct call *parts[64];
        int ranks = first->comm->ranks;
        for (int rank = 0; rank < ranks; rank++)
            if (!(parts[rank] = next(rank)) || parts[rank]->sums != first->sums || parts[rank]->count != first->count)
                return INVALID;
        run(parts, ranks);
        for (int rank = 0; rank < ranks; rank++) parts[rank]->comm = NULL;
    }
    for (int i = 0; i < count; i++)
        if (calls[i].comm) return INVALID;
    count = 0;
    return 0;
}

const char *ncclGetErrorString(int result) {
    return result == INVALID ? "invalid argument" : "no error";
}

const char *ncclGetLastError(struct ncclComm *comm) {
    (void)comm;
    return "the last one";
}
