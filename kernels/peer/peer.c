#include "kernels/peer/peer.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/peer/tilebook_peer.h"
#ifdef TILEBOOK_CUDA
#include "kernels/cuda/driver.h"
#endif

_Static_assert((int)TILEBOOK_AWQ_DEQUANT == OP_AWQ_DEQUANT && (int)TILEBOOK_MARLIN_GEMM == OP_MARLIN_GEMM &&
                   (int)TILEBOOK_FP16_GEMM == OP_FP16_GEMM && OP_COUNT == 3,
               "the header's ops are the program's");
_Static_assert((int)TILEBOOK_ON_CPU == BACKEND_CPU && (int)TILEBOOK_ON_CUDA == BACKEND_CUDA, "and its backends");
_Static_assert((int)TILEBOOK_EPILOGUE_BIAS == EPILOGUE_BIAS && (int)TILEBOOK_EPILOGUE_RESIDUAL == EPILOGUE_RESIDUAL &&
                   (int)TILEBOOK_EPILOGUE_SILU_MUL == EPILOGUE_SILU_MUL,
               "and its epilogues");

enum { MOST_NAME = 24, GUARD_BYTES = 256, GUARD = 0xa5 };

/* `kernel` comes first: the functions below find their library by its address. */
struct peer_kernel {
    struct kernel kernel;
    const struct tilebook_peer *peer;
    int library;
};

static struct library {
    char name[8 + MOST_NAME];
    struct peer_kernel kernels[OP_COUNT];
} libraries[MAX_PEERS];

static int library_count;

/* What a plan keeps. */
struct use {
    struct tilebook_device device;
    struct tilebook_problem problem;
    struct tilebook_needs needs;
    bool opened;
    int count, next;      /* of the copies; the one whose turn is likely */
    const void **weights; /* of each copy, canonical */
    char *prepared;       /* of all copies, `stride` bytes each; NULL for none */
    size_t stride;
};

/* --- calls --- */

static struct peer_watch nobody, *watch = &nobody;

void peer_set_watch(struct peer_watch *shared) {
    watch = shared ? shared : &nobody;
}

static void enter(int library, const char *function) {
    watch->library = library;
    watch->function = function;
    watch->inside = true;
    if (watch->seconds) alarm(watch->seconds);
}

static void leave(void) {
    if (watch->seconds) alarm(0);
    watch->inside = false;
}

/* After a call that enqueues. `why` is the library's and may lack its end. */
static int finish(struct device *device, const char *function, int status, char why[TILEBOOK_WHY],
                  struct error *error) {
    struct error fault;
    int waited = watch->seconds ? device_synchronize(device, &fault) : 0;
    leave();
    if (status) return error_set(error, "%s: %.*s", function, TILEBOOK_WHY, *why ? why : "failed without a reason");
    return waited ? error_set(error, "%s: %s", function, fault.text) : 0;
}

/* The device as libraries see it; its context becomes current. */
static int describe(const struct device *device, struct tilebook_device *to, struct error *error) {
    *to = (struct tilebook_device){device->backend, device->index, device->compute_capability, device->multiprocessors,
                                   NULL};
#ifdef TILEBOOK_CUDA
    if (device->backend == BACKEND_CUDA) {
        if (cuda_enter(device, error)) return -1;
        to->stream = cuda_stream(device);
    }
#else
    (void)error;
#endif
    return 0;
}

static struct tilebook_problem problem_of(const struct problem *p) {
    return (struct tilebook_problem){p->op, p->m, p->n, p->k, p->group, p->zeros, p->epilogue};
}

static int accepts(const struct kernel *kernel, const struct device *device, const struct problem *problem,
                   struct error *error) {
    const struct peer_kernel *self = (const struct peer_kernel *)kernel;
    const struct tilebook_problem p = problem_of(problem);
    struct tilebook_device d;
    char why[TILEBOOK_WHY] = "";
    if (!self->peer->legal) return 0;
    if (describe(device, &d, error)) return -1;
    d.stream = NULL;
    enter(self->library, "legal");
    int status = self->peer->legal(&d, &p, why);
    leave();
    return status ? error_set(error, "%.*s", TILEBOOK_WHY, *why ? why : "refused without a reason") : 0;
}

/* One problem is as fast as another where there is nothing to choose. */
static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    (void)device, (void)problem, (void)config;
    return 0;
}

static void release(struct plan *plan) {
    const struct peer_kernel *self = (const struct peer_kernel *)plan->kernel;
    struct use *use = plan->state;
    if (!use) return;
    device_synchronize(plan->device, NULL);
    if (self->peer->close && use->opened && !describe(plan->device, &use->device, NULL)) {
        enter(self->library, "close");
        self->peer->close(use->needs.state);
        leave();
    }
    device_free(plan->device, use->prepared);
    free(use->weights);
    free(use);
}

/* On failure plan_destroy calls release. */
static int prepare(struct plan *plan, struct error *error) {
    const struct peer_kernel *self = (const struct peer_kernel *)plan->kernel;
    char why[TILEBOOK_WHY] = "";
    struct use *use = plan->state = calloc(1, sizeof *use);
    if (!use) return error_set(error, "out of memory");
    use->problem = problem_of(&plan->problem);
    if (describe(plan->device, &use->device, error)) return -1;
    if (self->peer->open) {
        enter(self->library, "open");
        int status = self->peer->open(&use->device, &use->problem, &use->needs, why);
        if (finish(plan->device, "open", status, why, error)) return -1;
    }
    use->opened = true;
    if (use->needs.prepared_bytes && !self->peer->prepare)
        return error_set(error, "open asks for %zu bytes of prepared weights, but there is no prepare",
                         use->needs.prepared_bytes);
    if (use->needs.workspace_bytes) plan->workspace_bytes = WORKSPACE_COUNTER_BYTES + use->needs.workspace_bytes;
    return 0;
}

/* --- weights in the library's layout --- */

static void *workspace_of(const struct use *use, const struct operands *operands) {
    return use->needs.workspace_bytes ? (char *)operands->workspace + WORKSPACE_COUNTER_BYTES : NULL;
}

static int allocate(struct device *device, struct use *use, const struct operands *copies, int count,
                    struct error *error) {
    size_t bytes = use->needs.prepared_bytes, aligned = (bytes + 255) / 256 * 256;
    const void **weights = reallocarray(use->weights, (size_t)count, sizeof *weights);
    if (!weights) return error_set(error, "out of memory");
    use->weights = weights;
    for (int i = 0; i < count; i++) weights[i] = copies[i].weights;
    if (bytes && count > use->count) {
        if (aligned < bytes || aligned + GUARD_BYTES > SIZE_MAX / (size_t)count)
            return error_set(error, "open asks for %zu bytes of prepared weights, more than there can be", bytes);
        use->stride = aligned + GUARD_BYTES;
        device_free(device, use->prepared);
        use->count = 0;
        use->prepared = device_alloc(device, use->stride * (size_t)count, error);
        if (!use->prepared) return error_prefix(error, "prepared weights of %d copies", count);
    }
    use->count = count;
    use->next = 0;
    return bytes ? device_fill(device, use->prepared, GUARD, use->stride * (size_t)count, error) : 0;
}

/* Between the bytes that were asked for and the next copy. */
static int check_guards(struct device *device, const struct use *use, struct error *error) {
    unsigned char guard[2 * GUARD_BYTES];
    size_t bytes = use->needs.prepared_bytes, count = use->stride - bytes;
    for (int i = 0; i < use->count; i++) {
        if (device_read(device, guard, use->prepared + (size_t)i * use->stride + bytes, count, error)) return -1;
        for (size_t b = 0; b < count; b++)
            if (guard[b] != GUARD)
                return error_set(error, "prepare: wrote behind the %zu bytes that open had asked for", bytes);
    }
    return 0;
}

static int prepare_weights(const struct plan *plan, const struct operands *copies, int count, struct error *error) {
    const struct peer_kernel *self = (const struct peer_kernel *)plan->kernel;
    struct device *device = plan->device;
    struct use *use = plan->state;
    if (use->needs.workspace_bytes &&
        device_fill(device, workspace_of(use, copies), 0, use->needs.workspace_bytes, error))
        return -1;
    if (allocate(device, use, copies, count, error) || describe(device, &use->device, error)) return -1;
    for (int i = 0; i < count && use->prepared; i++) {
        char why[TILEBOOK_WHY] = "";
        const struct tilebook_call call = {.device = &use->device,
                                           .problem = &use->problem,
                                           .state = use->needs.state,
                                           .weights = copies[i].weights,
                                           .scales = copies[i].scales,
                                           .zeros = copies[i].zeros,
                                           .prepared = use->prepared + (size_t)i * use->stride};
        enter(self->library, "prepare");
        int status = self->peer->prepare(&call, why);
        if (finish(device, "prepare", status, why, error)) return -1;
    }
    return use->prepared ? check_guards(device, use, error) : 0;
}

/* Of these operands; NULL if they were never prepared. Copies are used in turn, so the first guess is mostly right. */
static char *prepared_of(struct use *use, const void *weights) {
    for (int tried = 0; tried < use->count; tried++) {
        int i = use->next;
        use->next = i + 1 < use->count ? i + 1 : 0;
        if (use->weights[i] == weights) return use->prepared + (size_t)i * use->stride;
    }
    return NULL;
}

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    const struct peer_kernel *self = (const struct peer_kernel *)plan->kernel;
    struct use *use = plan->state;
    char why[TILEBOOK_WHY] = "", *prepared = use->prepared ? prepared_of(use, operands->weights) : NULL;
    if (use->needs.prepared_bytes && !prepared) return error_set(error, "run: these weights were not prepared");
    if (describe(plan->device, &use->device, error)) return -1;
    const struct tilebook_call call = {.device = &use->device,
                                       .problem = &use->problem,
                                       .state = use->needs.state,
                                       .weights = operands->weights,
                                       .scales = operands->scales,
                                       .zeros = operands->zeros,
                                       .prepared = prepared,
                                       .x = operands->x,
                                       .addend = operands->addend,
                                       .y = operands->y,
                                       .workspace = workspace_of(use, operands)};
    enter(self->library, "run");
    return finish(plan->device, "run", self->peer->run(&call, why), why, error);
}

/* --- loading --- */

/* The first bytes of an ELF file; -1 unless it is one of our class. */
static int read_header(const char *path, ElfW(Ehdr) * header) {
    FILE *file = fopen(path, "rb");
    bool whole = file && fread(header, sizeof *header, 1, file) == 1;
    if (file) fclose(file);
    const int class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    return whole && !memcmp(header->e_ident, ELFMAG, SELFMAG) && header->e_ident[EI_CLASS] == class ? 0 : -1;
}

/* What the loader's own messages blame on a missing file. */
static int check_file(const char *path, struct error *error) {
    ElfW(Ehdr) file, own;
    if (access(path, R_OK)) return error_set(error, "%s", strerror(errno));
    if (read_header(path, &file) || file.e_type != ET_DYN)
        return error_set(error, "this is not a shared library of %zu bits", 8 * sizeof(void *));
    if (!read_header("/proc/self/exe", &own) && file.e_machine != own.e_machine)
        return error_set(error, "this is a library for another machine (ELF machine %d; this program is %d)",
                         file.e_machine, own.e_machine);
    return 0;
}

static int check_peer(const struct tilebook_peer *peer, struct error *error) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
    if (peer->version != TILEBOOK_PEER_VERSION)
        return error_set(error,
                         "it was compiled with version %d of tilebook_peer.h, and this program takes %d: "
                         "compile it again with this program's",
                         peer->version, TILEBOOK_PEER_VERSION);
    if (peer->backend != TILEBOOK_ON_CPU && peer->backend != TILEBOOK_ON_CUDA)
        return error_set(error, "its backend is %d; accepted are TILEBOOK_ON_CPU and TILEBOOK_ON_CUDA", peer->backend);
    if (!peer->name || !peer->summary || !peer->run) return error_set(error, "it lacks a name, a summary or run");
    size_t length = strnlen(peer->name, MOST_NAME + 1);
    if (!length || length > MOST_NAME || strspn(peer->name, letters) < length)
        return error_set(error, "its name '%.*s' is not 1 to %d of a-z 0-9 _ . -", MOST_NAME + 1, peer->name,
                         MOST_NAME);
    if (!peer->ops || peer->ops >> OP_COUNT)
        return error_set(error, "its ops are 0x%x; accepted are 1u << TILEBOOK_..., or-ed", (unsigned)peer->ops);
    return 0;
}

static int find_entry(const char *path, const struct tilebook_peer **peer, struct error *error) {
    char full[PATH_MAX];
    if (!realpath(path, full)) return error_set(error, "%s", strerror(errno));
    enter(library_count, "loading");
    void *handle = dlopen(full, RTLD_NOW | RTLD_LOCAL);
    leave();
    if (!handle) return error_set(error, "%s", dlerror());
    *peer = dlsym(handle, "tilebook_peer");
    if (!*peer) error_set(error, "it does not define tilebook_peer; tilebook_peer.h says how");
    if (*peer && !check_peer(*peer, error)) return 0;
    dlclose(handle);
    return -1;
}

static int add_kernels(const struct tilebook_peer *peer, struct library *library, struct error *error) {
    snprintf(library->name, sizeof library->name, "peer:%s", peer->name);
    for (enum op op = 0; op < OP_COUNT; op++) {
        if (!(peer->ops >> op & 1)) continue;
        struct peer_kernel *self = &library->kernels[op];
        *self = (struct peer_kernel){.peer = peer, .library = library_count};
        self->kernel = (struct kernel){.op = op,
                                       .backend = (enum backend)peer->backend,
                                       .peer = true,
                                       .name = library->name,
                                       .summary = peer->summary,
                                       .accepts = accepts,
                                       .estimate = estimate,
                                       .prepare = prepare,
                                       .prepare_weights = prepare_weights,
                                       .run = run,
                                       .release = release};
        if (kernel_register(&self->kernel, error)) return -1;
    }
    return 0;
}

int peer_load(const char *path, struct error *error) {
    const struct tilebook_peer *peer;
    if (library_count == MAX_PEERS) return error_set(error, "--peer %s: more than %d libraries", path, MAX_PEERS);
    if (check_file(path, error) || find_entry(path, &peer, error) ||
        add_kernels(peer, &libraries[library_count], error))
        return error_prefix(error, "--peer %s", path);
    library_count++;
    return 0;
}
