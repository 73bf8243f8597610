/* A peer that does something else wrong for every K. It says that all is legal. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../kernels/half.h"
#include "tilebook_peer.h"

enum {
    ZEROS = 128, /* what is wrong with them the verifier says */
    REFUSES_IN_OPEN = 256,
    CRASHES_IN_PREPARE = 384,
    WRITES_BEHIND = 512,
    CRASHES_IN_RUN = 640,
    ABORTS_IN_RUN = 768,
    EXITS_IN_RUN = 896,
    WRITES_NOTHING = 1024,
    FAILS_WITHOUT_REASON = 1152,
    HANGS = 1280,
    CRASHES_IN_LEGAL = 1408,
    KEEPS_THE_FIRST_WEIGHTS = 1536,
};

static volatile int *nowhere;

static int legal(const struct tilebook_device *device, const struct tilebook_problem *p, char *why) {
    (void)device, (void)why;
    return p->k == CRASHES_IN_LEGAL ? *nowhere : 0;
}

static int open(const struct tilebook_device *device, const struct tilebook_problem *p, struct tilebook_needs *needs,
                char *why) {
    (void)device;
    needs->prepared_bytes = 1000;
    if (p->k == REFUSES_IN_OPEN) strcpy(why, "it is not legal after all");
    return p->k == REFUSES_IN_OPEN;
}

static int prepare(const struct tilebook_call *call, char *why) {
    (void)why;
    memset(call->prepared, 0, call->problem->k == WRITES_BEHIND ? 1001 : 1000);
    return call->problem->k == CRASHES_IN_PREPARE ? *nowhere : 0;
}

/* Right for the first weights that it is given, and never looks at others. */
static int multiply_first(const struct tilebook_call *call) {
    static const uint16_t *first;
    const struct tilebook_problem *p = call->problem;
    const uint16_t *x = call->x;
    uint16_t *y = call->y;
    if (!first) first = call->weights;
    for (int i = 0; i < p->m * p->n; i++) {
        float sum = 0;
        for (int k = 0; k < p->k; k++)
            sum += half_to_float(x[i / p->n * p->k + k]) * half_to_float(first[i % p->n * p->k + k]);
        y[i] = half_from_float(sum);
    }
    return 0;
}

static int run(const struct tilebook_call *call, char *why) {
    const struct tilebook_problem *p = call->problem;
    size_t bytes = 2 * (size_t)p->m * (size_t)p->n;
    (void)why;
    switch (p->k) {
    case CRASHES_IN_RUN:
        return *nowhere;
    case ABORTS_IN_RUN:
        abort();
    case EXITS_IN_RUN:
        exit(3);
    case HANGS:
        for (;;) pause();
    case FAILS_WITHOUT_REASON:
        return -1;
    case WRITES_NOTHING:
        return 0;
    case KEEPS_THE_FIRST_WEIGHTS:
        return multiply_first(call);
    }
    memset(call->y, 0, bytes);
    return 0;
}

const struct tilebook_peer tilebook_peer = {.version = TILEBOOK_PEER_VERSION,
                                            .backend = TILEBOOK_ON_CPU,
                                            .name = "bad",
                                            .summary = "wrong in many ways",
                                            .ops = 1u << TILEBOOK_FP16_GEMM,
                                            .legal = legal,
                                            .open = open,
                                            .prepare = prepare,
                                            .run = run};
