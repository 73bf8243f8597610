/* A place where kernels run: the processor of this machine ("cpu") or one GPU ("cuda:0").
 * Memory and order of work are the same calls for both; CUDA's libraries are opened at run time. */
#ifndef TILEBOOK_DEVICE_H
#define TILEBOOK_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/error.h"

enum backend { BACKEND_CPU, BACKEND_CUDA };

/* What a kernel that waits by itself (struct device_grid) may do while the one ahead of it still runs. */
enum device_overlap {
    OVERLAP_NOTHING, /* it starts afterwards */
    OVERLAP_START,   /* start, but read nothing: the one ahead of it writes even its weights */
    OVERLAP_WEIGHTS, /* start and read its weights */
};

struct device {
    enum backend backend;
    int index;                   /* of the GPU; 0 for the CPU */
    char id[16];                 /* "cpu", "cuda:0" */
    char name[96];               /* "NVIDIA H100 80GB HBM3", "AMD EPYC 9354 ..." */
    char uuid[48];               /* "GPU-..." or "" */
    char architecture[16];       /* "sm_90a"; "avx512f", "avx2" or "generic" */
    char software[96];           /* "driver 580.159, cuda 13.0, nvrtc 13.0"; compiler of the CPU backend */
    char kernels[16];            /* hash of this backend's kernel sources, 8 hex digits */
    int compute_capability;      /* 90 for sm_90; 0 for the CPU */
    int multiprocessors;         /* SMs; usable cores for the CPU */
    size_t cache_bytes;          /* L2 of the GPU, last-level cache of the CPU */
    size_t memory_bytes;         /* installed */
    size_t shared_block_bytes;   /* most dynamic shared memory of one block (opt-in) */
    size_t shared_sm_bytes;      /* shared memory of one SM */
    double memory_gbs;           /* theoretical bandwidth, GB/s, for estimates only; never quoted */
    double matrix_tflops;        /* theoretical fp16 matrix rate, for estimates only */
    enum device_overlap overlap; /* as device_overlap set it */
    const struct device_functions *functions;
    void *state; /* the backend's own */
};

/* The blocks of a launch. */
struct device_grid {
    unsigned blocks[3], threads; /* threads of a block */
    unsigned cluster;            /* blocks along the first side that form a cluster (sm_90); 0 or 1: none */
    bool overlaps;               /* the kernel waits by itself (griddepcontrol.wait) before it reads what the one
                                    ahead of it wrote and before it writes, so that it may start earlier where
                                    device_overlap allows */
};

/* A matrix of which a kernel requests boxes by their place, in one instruction (sm_90); what lies outside comes as
 * zeros. Rows are a multiple of 16 bytes and so is the memory's address; boxes have at most 256 rows and columns. */
struct device_tensor {
    int element_bytes; /* 1, 2, 4 or 8 */
    size_t rows, columns;
    int box_rows, box_columns;
    bool swizzle; /* chunk c (16 bytes) of row r of a box 128 bytes wide lies at c ^ (r & 7) */
};

/* What the kernel is passed of it. */
struct device_tensor_map {
    _Alignas(64) unsigned char opaque[128];
};

struct device_function; /* device code, compiled and loaded; lives as long as its device */
struct device_graph;    /* calls recorded once, to be enqueued as one */

/* Enqueues what is to be recorded: launches, copies and fills. */
typedef int device_enqueue(void *context, struct error *error);

/* What a backend provides; the calls below say what each does. */
struct device_functions {
    void (*close)(struct device *);
    void *(*alloc)(struct device *, size_t bytes, struct error *);
    void (*free)(struct device *, void *memory);
    size_t (*memory_free)(struct device *);
    void *(*alloc_host)(struct device *, size_t bytes, struct error *);
    void (*free_host)(struct device *, void *memory);
    int (*write)(struct device *, void *to, const void *from_host, size_t bytes, struct error *);
    int (*read)(struct device *, void *to_host, const void *from, size_t bytes, struct error *);
    int (*copy)(struct device *, void *to, const void *from, size_t bytes, struct error *);
    int (*fill)(struct device *, void *to, unsigned char byte, size_t bytes, struct error *);
    int (*synchronize)(struct device *, struct error *);
    /* NULL on the CPU: */
    int (*function)(struct device *, const char *source, const char *entry, const char *options, size_t shared_bytes,
                    struct device_function **, struct error *);
    int (*launch)(struct device *, const struct device_function *, const struct device_grid *, const void *arguments,
                  struct error *);
    int (*tensor_map)(struct device *, const struct device_tensor *, const void *memory, struct device_tensor_map *,
                      struct error *);
    int (*mark)(struct device *, int which, struct error *);
    int (*elapsed)(struct device *, int from, int to, double *microseconds, struct error *);
    int (*graph_record)(struct device *const *devices, int count, device_enqueue *, void *context,
                        struct device_graph **, struct error *);
    int (*graph_launch)(struct device *, const struct device_graph *, struct error *);
    void (*graph_destroy)(struct device *, struct device_graph *);
};

/* Whether `id` is a name that a device can have: "cpu", "cuda:N" or "auto". */
int device_check_id(const char *id, struct error *error);

/* Opens "cpu", "cuda:N", or "auto" (cuda:0 where a usable GPU and NVRTC are, else the CPU).
 * Errors: unknown name, no driver or no GPU (and that `--device cpu` works), no NVRTC. */
int device_open(const char *id, struct device **device, struct error *error);
void device_close(struct device *device);

/* How many GPUs a driver reports; 0 without one, then `why` says what was missing. */
int device_cuda_count(struct error *why);

/* Device memory, 256-byte aligned. NULL on failure; the message says what was asked and what was free. */
void *device_alloc(struct device *device, size_t bytes, struct error *error);
/* After waiting for what was enqueued. NULL is nothing. */
void device_free(struct device *device, void *memory);
/* Bytes that device_alloc could still give; SIZE_MAX if unknown. */
size_t device_memory_free(struct device *device);
/* Memory of the host, 256-byte aligned, that the kernels of this and of all other devices of its backend read and write
 * too, at the same address and at the pace of their bus; what they wrote is there once the host has waited for them.
 * NULL on failure. */
void *device_alloc_host(struct device *device, size_t bytes, struct error *error);
/* After waiting for what was enqueued. NULL is nothing. */
void device_free_host(struct device *device, void *memory);

/* All of these are ordered with the kernels that were run before; write and read wait for their bytes, so that the
 * host's memory is the caller's again. */
int device_write(struct device *device, void *to, const void *from_host, size_t bytes, struct error *error);
int device_read(struct device *device, void *to_host, const void *from, size_t bytes, struct error *error);
int device_copy(struct device *device, void *to, const void *from, size_t bytes, struct error *error);
int device_fill(struct device *device, void *to, unsigned char byte, size_t bytes, struct error *error);
int device_synchronize(struct device *device, struct error *error);

/* --- GPUs only: device code, events, graphs --- */

/* Compiles an embedded source ("fp16_gemm/mma.cu") with NVRTC for this device, or takes it from the cubin
 * cache, loads it and keeps it: cheap to ask again. `options` are NVRTC's, separated by spaces. The
 * function may be launched with `shared_bytes` of dynamic shared memory. */
int device_function(struct device *device, const char *source, const char *entry, const char *options,
                    size_t shared_bytes, struct device_function **function, struct error *error);
/* Compiles it into the cubin cache alone, for device_function to find; from any thread, beside one that runs kernels.
 */
int device_compile(const struct device *device, const char *source, const char *options, struct error *error);
/* Enqueues a launch; `arguments` points to the one struct that the entry takes by value. */
int device_launch(struct device *device, const struct device_function *function, const struct device_grid *grid,
                  const void *arguments, struct error *error);
/* Describes the matrix at `memory`. */
int device_tensor_map(struct device *device, const struct device_tensor *tensor, const void *memory,
                      struct device_tensor_map *map, struct error *error);
/* How far launches from here on may overlap the ones ahead of them (programmatic dependent launch, from compute
 * capability 9.0 on); at first they may not, so that each is timed alone. */
void device_overlap(struct device *device, enum device_overlap overlap);
/* Allows no more than `most` of what was allowed, and returns that, for device_overlap afterwards. */
enum device_overlap device_limit_overlap(struct device *device, enum device_overlap most);
/* Event 0 .. DEVICE_MARKS - 1 into the queue; then, after waiting for both, the time between two of them. */
enum { DEVICE_MARKS = 8 };
int device_mark(struct device *device, int which, struct error *error);
int device_elapsed(struct device *device, int from, int to, double *microseconds, struct error *error);
/* From event 0 to event 1. */
int device_marked(struct device *device, double *microseconds, struct error *error);

/* Calls `enqueue` and records what it enqueues instead of running it; what may overlap then is what may in the graph.
 * Events and all that waits or allocates are errors meanwhile; only one thread may use the device. -1 and *graph NULL
 * if `enqueue` fails or nothing came of it; either way the device runs what is enqueued from then on. The arguments of
 * the launches are copied, what they point to must outlive the graph. */
int device_graph_record(struct device *device, device_enqueue *enqueue, void *context, struct device_graph **graph,
                        struct error *error);
/* The same of several devices, one graph each: what `enqueue` enqueues on any of them. They are launched together. */
int device_graphs_record(struct device *const *devices, int count, device_enqueue *enqueue, void *context,
                         struct device_graph **graphs, struct error *error);
/* Enqueues all that was recorded; as often as wanted. */
int device_graph_launch(struct device *device, const struct device_graph *graph, struct error *error);
/* After waiting for what was enqueued. NULL is nothing. */
void device_graph_destroy(struct device *device, struct device_graph *graph);

#endif
