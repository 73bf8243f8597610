/* Libraries in the place of NVIDIA's, which tests load first: what the program opens by name later is what is there
 * already. `fake` in each of them says how it behaves and what it saw. */
#ifndef TILEBOOK_TESTS_FAKE_H
#define TILEBOOK_TESTS_FAKE_H

#include <stdbool.h>
#include <stdint.h>

/* Each launch has two kernels: 10 us, and 5 us that start 2 us later. What is wrong with the records of the fourth: */
enum fake_fault {
    FAULT_NONE,
    FAULT_MISSING, /* the second kernel's is not there */
    FAULT_UNTAGGED,
    FAULT_ZERO,  /* no end */
    FAULT_OTHER, /* another name */
    FAULT_LATE   /* they come one flush too late */
};

struct fake_cupti {
    bool held;      /* by another tool: nobody can subscribe */
    int refuses;    /* the kind of activity that cannot be enabled; 0: none */
    bool reversed;  /* the last record comes first, one to a buffer */
    uint64_t drops; /* records that the first flush says were dropped */
    enum fake_fault fault;
    int subscribed, enabled; /* now */
    int launches, flushes;
    void (*launch)(void); /* what the device calls */
};

struct fake_nvml {
    int calls;
    int slow_from; /* from this call on 1200 MHz in hardware slowdown instead of 1980 MHz; 0: never */
    uint64_t used; /* bytes of memory, by two processes */
};

struct fake_nccl {
    bool refuses; /* to connect */
    int first;    /* GPU; the others follow */
    int comms, groups;
};

/* As NVML declares them: nvmlMemory_v2_t, nvmlProcessInfo_t. */
struct fake_memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct fake_process {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

#ifdef CUDA_VERSION /* <cuda.h> was included before */
struct fake_function {
    char file[128], entry[64];
    int shared_bytes;
};

/* In the place of a CUtensorMap. */
struct fake_map {
    int type, swizzle, promotion;
    const void *memory;
    cuuint64_t sides[2], row_bytes;
    cuuint32_t box[2];
};

struct fake_cuda {
    const char *name;
    int major, minor, multiprocessors;
    bool no_context;
    int modules; /* loaded now */
    int launches;
    /* Of the last one: */
    CUlaunchConfig config;
    int cluster, overlaps;
    const struct fake_function *function;
    unsigned char parameters[640];
};
#endif

#endif
