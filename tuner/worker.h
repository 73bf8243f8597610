/* The process that measures. A supervisor starts it, on a socket of records; it opens the device and makes one trial
 * after the other, so that whatever a kernel does to its process or its device is no one else's. */
#ifndef TILEBOOK_WORKER_H
#define TILEBOOK_WORKER_H

#include "bench/chain.h"
#include "bench/measure.h"
#include "tuner/search.h"

/* The hidden subcommand, followed by the device; the socket is standard input. */
#define WORKER_COMMAND "worker"

enum { WORKER_SOCKET = 0, WORKER_SAMPLES = 2000, WORKER_ARMS = FINALISTS + 2 };

/* Both ends are the same program: a record is the struct itself. One arm is a trial; several are measured by turns.
 * With layers they are the GEMMs of a chain (bench/chain.h), which is measured as a whole. */
struct worker_request {
    struct problem problem; /* of a chain the largest */
    struct problem chain[CHAIN_GEMMS];
    int layers;                     /* of the chain; 0: there is none */
    struct measure_options measure; /* of one arm; of several its regime */
    int arms, rounds;               /* rounds of several arms */
    double round_s;                 /* as in struct rounds */
    struct {
        int kernel; /* its place in the list that both ends have */
        struct config config;
    } arm[WORKER_ARMS];
};

/* What a worker goes through: once, then for each request. It answers as soon as it has passed a stage. */
enum worker_stage {
    WORKER_OPEN,    /* the device */
    WORKER_DATA,    /* operands and reference, or a chain's weights, unless they are those of the request before */
    WORKER_COMPILE, /* of all arms; passed over where the trial ends before */
    WORKER_RESULT,
};

struct worker_answer {
    enum worker_stage stage;
    struct error error;              /* why opening or the data failed; "" if it did not */
    struct device device;            /* of WORKER_OPEN; a description, without functions */
    struct trial_result result;      /* of WORKER_RESULT; seconds are not set, sample_us is NULL */
    float sample_us[WORKER_SAMPLES]; /* result.samples of them are sent; of rounds each arm's medians */
};

/* Serves until the supervisor closes its end. -1 if standard input is no such socket. */
int worker_serve(const char *device, const struct kernel *const *kernels, struct error *error);

#endif
