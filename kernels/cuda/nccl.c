#include "kernels/cuda/nccl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#include "kernels/cuda/driver.h"

/* The few declarations of nccl.h that are used: the header is of a package that nothing else here needs. */
typedef struct ncclComm *comm;
enum { NCCL_SUM = 0, NCCL_FLOAT16 = 6 };

static struct {
    int (*ncclCommInitAll)(comm *comms, int count, const int *devices);
    int (*ncclCommDestroy)(comm);
    int (*ncclGroupStart)(void);
    int (*ncclGroupEnd)(void);
    int (*ncclAllReduce)(const void *from, void *to, size_t count, int type, int op, comm, CUstream);
    int (*ncclAllGather)(const void *from, void *to, size_t count, int type, comm, CUstream);
    const char *(*ncclGetErrorString)(int result);
    const char *(*ncclGetLastError)(comm);
    struct error error; /* why it is not open; empty when it is */
} library;

struct nccl {
    comm *comms; /* of the ranks */
};

static void load(void) {
    void *handle = cuda_library((const char *const[]){"libnccl.so.2", NULL});
    if (!handle) {
        error_set(&library.error,
                  "no NCCL: libnccl.so.2 is neither on the library path nor below $CUDA_HOME or /usr/local/cuda; it is "
                  "in the package libnccl2 of NVIDIA's repository, or nvidia-nccl-cu13 of PyPI, whose lib folder then "
                  "has to be in LD_LIBRARY_PATH");
        return;
    }
#define LOAD(name)                                                                                                     \
    if (!(library.name = (__typeof__(library.name))dlsym(handle, #name)))                                              \
        error_set(&library.error, "this NCCL is too old: libnccl.so.2 has no " #name);
    LOAD(ncclCommInitAll)
    LOAD(ncclCommDestroy)
    LOAD(ncclGroupStart)
    LOAD(ncclGroupEnd)
    LOAD(ncclAllReduce)
    LOAD(ncclAllGather)
    LOAD(ncclGetErrorString)
    LOAD(ncclGetLastError)
}

static int check(int result, const char *what, struct error *error) {
    if (!result) return 0;
    return error_set(error, "%s: NCCL: %s (%s)", what, library.ncclGetErrorString(result),
                     library.ncclGetLastError(NULL));
}

/* One sum of each rank's, which waits for the connections: they are not to be made while a graph is recorded. */
static int connect_ranks(struct communicator *c, struct error *error) {
    uint16_t **words = calloc((size_t)c->count, sizeof *words);
    int status = words ? 0 : error_set(error, "out of memory");
    for (int i = 0; i < c->count && !status; i++)
        if (!(words[i] = device_alloc(c->devices[i], 256, error)) ||
            device_fill(c->devices[i], words[i], 0, 256, error))
            status = -1;
    if (!status) status = nccl_all_reduce(c, words, 128, error);
    for (int i = 0; i < c->count && !status; i++) status = device_synchronize(c->devices[i], error);
    for (int i = 0; words && i < c->count; i++) device_free(c->devices[i], words[i]);
    free(words);
    return status;
}

static int create(struct communicator *c, struct error *error) {
    int *indices = malloc((size_t)c->count * sizeof *indices);
    c->nccl = calloc(1, sizeof *c->nccl);
    if (c->nccl) c->nccl->comms = calloc((size_t)c->count, sizeof *c->nccl->comms);
    int status = indices && c->nccl && c->nccl->comms ? 0 : error_set(error, "out of memory");
    for (int i = 0; i < c->count && !status; i++) indices[i] = c->devices[i]->index;
    if (!status)
        status = check(library.ncclCommInitAll(c->nccl->comms, c->count, indices), "connecting the GPUs", error);
    free(indices);
    return status;
}

int nccl_open(struct communicator *c, struct error *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    if (library.error.text[0]) return error_set(error, "%s", library.error.text);
    return create(c, error) || connect_ranks(c, error) ? -1 : 0;
}

void nccl_close(struct communicator *c) {
    for (int i = 0; c->nccl->comms && i < c->count; i++)
        if (c->nccl->comms[i]) library.ncclCommDestroy(c->nccl->comms[i]);
    free(c->nccl->comms);
    free(c->nccl);
    c->nccl = NULL;
}

/* The end of a group, which alone may wait for the other ranks; whatever was wrong in it comes first. */
static int end_group(struct communicator *c, int result, const char *what, struct error *error) {
    int ended = library.ncclGroupEnd();
    for (int i = 0; i < c->count; i++) cuda_stand_apart(c->devices[i]);
    return check(result ? result : ended, what, error);
}

int nccl_all_reduce(struct communicator *c, uint16_t *const *buffers, size_t count, struct error *error) {
    int result = library.ncclGroupStart();
    for (int i = 0; i < c->count && !result; i++)
        result = library.ncclAllReduce(buffers[i], buffers[i], count, NCCL_FLOAT16, NCCL_SUM, c->nccl->comms[i],
                                       cuda_stream(c->devices[i]));
    return end_group(c, result, "adding up what the GPUs have", error);
}

/* NCCL puts whole buffers one behind the other; a group of as many of them as there are rows is one launch. */
int nccl_all_gather(struct communicator *c, uint16_t *const *from, uint16_t *const *to, int rows, int width,
                    struct error *error) {
    size_t part = (size_t)width, all = part * (size_t)c->count;
    int result = library.ncclGroupStart();
    for (size_t row = 0; row < (size_t)rows; row++)
        for (int i = 0; i < c->count && !result; i++)
            result = library.ncclAllGather(from[i] + row * part, to[i] + row * all, part, NCCL_FLOAT16,
                                           c->nccl->comms[i], cuda_stream(c->devices[i]));
    return end_group(c, result, "gathering what the GPUs have", error);
}
