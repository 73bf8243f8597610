/* cuBLASLt as the baseline of fp16_gemm: the fastest of its heuristics' candidates on this problem.
 * It thinks in columns: y^T (N, M) = W (K, N)^T x (K, M), every leading dimension as the rows lie in memory. */
#include <cublasLt.h>
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "kernels/cuda/driver.h"
#include "kernels/kernel.h"
#include "kernels/reference.h"

#define CALLS(X)                                                                                                       \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)                                                                                     \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                            \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmul)

static struct {
#define MEMBER(name) __typeof__(&name) name;
    CALLS(MEMBER)
    struct error error; /* why it is not open; empty when it is */
} lt;

/* What a plan keeps. silu_mul, which the library lacks, is a second kernel: the sums of the first, rounded as y is,
 * lie in the workspace behind its counters, ahead of what the library asks for. */
struct gemm {
    enum epilogue epilogue;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes, sums_bytes;
    struct device_function *silu_mul; /* NULL unless that is the epilogue */
};

enum { MAX_CANDIDATES = 16, WORKSPACE_BYTES = 32 << 20, ROUNDS = 3, MIN_CALLS = 4, MAX_COPIES = 64, HEAD_START = 16 };

static void load(void) {
    void *library = cuda_library((const char *const[]){"libcublasLt.so.13", "libcublasLt.so.12", NULL});
    if (!library) {
        error_set(&lt.error, "no cuBLASLt: neither libcublasLt.so.13 nor libcublasLt.so.12 is on the library path, "
                             "below $CUDA_HOME or below /usr/local/cuda");
        return;
    }
#define LOAD(name)                                                                                                     \
    if (!(lt.name = (__typeof__(&name))dlsym(library, #name))) error_set(&lt.error, "cuBLASLt has no " #name);
    CALLS(LOAD)
}

static int open_library(struct error *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return lt.error.text[0] ? error_set(error, "%s", lt.error.text) : 0;
}

static int check(cublasStatus_t status, const char *what, struct error *error) {
    return status == CUBLAS_STATUS_SUCCESS ? 0 : error_set(error, "cuBLASLt: %s: status %d", what, (int)status);
}

static size_t aligned(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

/* y^T (N, M): its rows are the columns of W, so the library's bias is ours. It ranks algorithms by what it knows of the
 * bias, its alignment for one: an address like those that the calls will set stands in until then. */
static int describe_epilogue(struct gemm *gemm, const struct problem *p, struct error *error) {
    cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    uintptr_t stand_in = 256;
    gemm->epilogue = p->epilogue;
    if (p->epilogue == EPILOGUE_SILU_MUL) gemm->sums_bytes = aligned(2 * (size_t)p->m * (size_t)p->n);
    if (p->epilogue != EPILOGUE_BIAS) return 0;
    if (check(lt.cublasLtMatmulDescSetAttribute(gemm->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias),
              "describing the bias", error))
        return -1;
    return check(lt.cublasLtMatmulDescSetAttribute(gemm->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &stand_in,
                                                   sizeof stand_in),
                 "describing the bias", error);
}

static int describe(struct gemm *gemm, const struct problem *p, struct error *error) {
    uint64_t m = (uint64_t)p->m, n = (uint64_t)p->n, k = (uint64_t)p->k;
    cublasOperation_t transpose = CUBLAS_OP_T;
    cudaDataType_t type = p->bf16 ? CUDA_R_16BF : CUDA_R_16F;
    if (check(lt.cublasLtCreate(&gemm->handle), "creating a handle", error)) return -1;
    if (check(lt.cublasLtMatmulDescCreate(&gemm->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing", error) ||
        check(lt.cublasLtMatmulDescSetAttribute(gemm->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                                sizeof transpose),
              "describing", error))
        return -1;
    if (check(lt.cublasLtMatrixLayoutCreate(&gemm->w, type, k, n, (int64_t)k), "layout of W", error) ||
        check(lt.cublasLtMatrixLayoutCreate(&gemm->x, type, k, m, (int64_t)k), "layout of x", error) ||
        check(lt.cublasLtMatrixLayoutCreate(&gemm->y, type, n, m, (int64_t)n), "layout of y", error))
        return -1;
    return describe_epilogue(gemm, p, error);
}

/* Candidates that fit the workspace, by the library's own ranking. */
static int find_candidates(const struct gemm *gemm, cublasLtMatmulHeuristicResult_t *candidates, int *count,
                           struct error *error) {
    size_t workspace = WORKSPACE_BYTES;
    cublasLtMatmulPreference_t preference;
    if (check(lt.cublasLtMatmulPreferenceCreate(&preference), "creating a preference", error)) return -1;
    int status = check(lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                               &workspace, sizeof workspace),
                       "limiting the workspace", error);
    if (!status)
        status = check(lt.cublasLtMatmulAlgoGetHeuristic(gemm->handle, gemm->operation, gemm->w, gemm->x, gemm->y,
                                                         gemm->y, preference, MAX_CANDIDATES, candidates, count),
                       "asking for algorithms", error);
    lt.cublasLtMatmulPreferenceDestroy(preference);
    int usable = 0;
    for (int i = 0; !status && i < *count; i++)
        if (candidates[i].state == CUBLAS_STATUS_SUCCESS) candidates[usable++] = candidates[i];
    *count = usable;
    if (!status && usable == 0) return error_set(error, "cuBLASLt has no algorithm for this problem");
    return status;
}

static int multiply(const struct device *device, const struct gemm *gemm, const cublasLtMatmulAlgo_t *algorithm,
                    size_t workspace_bytes, const struct operands *o, struct error *error) {
    float one = 1, beta = gemm->epilogue == EPILOGUE_RESIDUAL;
    char *free = (char *)o->workspace + WORKSPACE_COUNTER_BYTES;
    void *y = gemm->sums_bytes ? free : o->y, *workspace = workspace_bytes ? free + gemm->sums_bytes : NULL;
    if (gemm->epilogue == EPILOGUE_BIAS &&
        check(lt.cublasLtMatmulDescSetAttribute(gemm->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->addend,
                                                sizeof o->addend),
              "setting the bias", error))
        return -1;
    return check(lt.cublasLtMatmul(gemm->handle, gemm->operation, &one, o->weights, gemm->w, o->x, gemm->x, &beta,
                                   beta ? o->addend : y, gemm->y, y, gemm->y, algorithm, workspace, workspace_bytes,
                                   (cudaStream_t)cuda_stream(device)),
                 "multiplying", error);
}

/* From the sums in the workspace to y. */
static int silu_mul(const struct plan *plan, const struct operands *o, struct error *error) {
    enum { THREADS = 128, COLUMNS = 16 * THREADS };
    const struct gemm *gemm = plan->state;
    const struct problem *p = &plan->problem;
    const struct device_grid grid = {.blocks = {(unsigned)p->m, (unsigned)((p->n + COLUMNS - 1) / COLUMNS), 1},
                                     .threads = THREADS};
    struct arguments arguments = {
        {.x = (char *)o->workspace + WORKSPACE_COUNTER_BYTES, .y = o->y}, p->m, p->n, 0, 0, 0};
    return device_launch(plan->device, gemm->silu_mul, &grid, &arguments, error);
}

/* Operands to time candidates on. */
struct scratch {
    struct operands operands[MAX_COPIES]; /* they differ in weights */
    int copies;
    void *memory;
};

/* Enough weights that none is in the L2 cache when its turn comes again: a decoder never finds its weights
 * there, and the fastest algorithm for cached weights is often another one. */
static int make_scratch(struct device *device, const struct problem *p, const struct gemm *gemm,
                        struct scratch *scratch, struct error *error) {
    struct operand_bytes bytes = problem_operand_bytes(p);
    size_t workspace = WORKSPACE_COUNTER_BYTES + gemm->sums_bytes + WORKSPACE_BYTES, y = aligned(bytes.y);
    size_t x = aligned(bytes.x), addend = aligned(bytes.addend), copies = 1 + 2 * device->cache_bytes / bytes.weights;
    scratch->copies = copies < MAX_COPIES ? (int)copies : MAX_COPIES;
    size_t weights = (size_t)scratch->copies * bytes.weights;
    int (*fill)(struct device *, void *, size_t, float, float, uint64_t, struct error *) =
        p->bf16 ? reference_fill_bf16 : reference_fill_half;
    char *memory = scratch->memory = device_alloc(device, workspace + y + x + addend + weights, error);
    if (!memory) return -1;
    for (int i = 0; i < scratch->copies; i++)
        scratch->operands[i] =
            (struct operands){.workspace = memory,
                              .y = memory + workspace,
                              .x = memory + workspace + y,
                              .addend = memory + workspace + y + x,
                              .weights = memory + workspace + y + x + addend + (size_t)i * bytes.weights};
    return fill(device, memory + workspace + y, (x + addend + weights) / 2, -1, 1, 1, error);
}

/* Enough work ahead of the first event that the calls are queued before the GPU comes to them: short kernels
 * run faster than they are launched. */
static int give_head_start(struct device *device, const struct scratch *scratch, struct error *error) {
    char *workspace = (char *)scratch->operands[0].workspace + WORKSPACE_COUNTER_BYTES;
    for (int i = 0; i < HEAD_START; i++)
        if (device_fill(device, workspace, 0, WORKSPACE_BYTES, error)) return -1;
    return 0;
}

/* Microseconds of one call over one round. */
static int time_round(struct device *device, const struct gemm *gemm, const cublasLtMatmulHeuristicResult_t *candidate,
                      const struct scratch *scratch, double *time, struct error *error) {
    int calls = scratch->copies > MIN_CALLS ? scratch->copies : MIN_CALLS;
    if (give_head_start(device, scratch, error) || device_mark(device, 0, error)) return -1;
    for (int i = 0; i < calls; i++)
        if (multiply(device, gemm, &candidate->algo, candidate->workspaceSize, &scratch->operands[i % scratch->copies],
                     error))
            return -1;
    if (device_mark(device, 1, error) || device_marked(device, time, error)) return -1;
    *time /= calls;
    return 0;
}

/* The best of a few rounds; one more before them loads the code. */
static int time_candidate(struct device *device, const struct gemm *gemm,
                          const cublasLtMatmulHeuristicResult_t *candidate, const struct scratch *scratch, double *best,
                          struct error *error) {
    *best = INFINITY;
    for (int round = 0; round <= ROUNDS; round++) {
        double time;
        if (time_round(device, gemm, candidate, scratch, &time, error)) return -1;
        if (round && time < *best) *best = time;
    }
    return 0;
}

static int choose(struct device *device, const struct problem *p, struct gemm *gemm, struct error *error) {
    cublasLtMatmulHeuristicResult_t candidates[MAX_CANDIDATES];
    struct scratch scratch = {.copies = 0};
    int count = 0, best = 0;
    double least = INFINITY;
    if (find_candidates(gemm, candidates, &count, error)) return -1;
    /* Where memory is too short to compare, the library's own ranking decides. */
    if (count > 1 && !make_scratch(device, p, gemm, &scratch, error)) {
        for (int i = 0; i < count; i++) {
            double time;
            if (time_candidate(device, gemm, &candidates[i], &scratch, &time, error)) continue;
            if (time < least) least = time, best = i;
        }
    }
    device_free(device, scratch.memory);
    if (scratch.memory && isinf(least)) return -1;
    gemm->algorithm = candidates[best].algo;
    gemm->workspace_bytes = candidates[best].workspaceSize;
    return 0;
}

static void release(struct plan *plan) {
    struct gemm *gemm = plan->state;
    if (!gemm || cuda_enter(plan->device, NULL)) return;
    if (gemm->y) lt.cublasLtMatrixLayoutDestroy(gemm->y);
    if (gemm->x) lt.cublasLtMatrixLayoutDestroy(gemm->x);
    if (gemm->w) lt.cublasLtMatrixLayoutDestroy(gemm->w);
    if (gemm->operation) lt.cublasLtMatmulDescDestroy(gemm->operation);
    if (gemm->handle) lt.cublasLtDestroy(gemm->handle);
    free(gemm);
}

/* On failure plan_destroy calls release. */
static int prepare(struct plan *plan, struct error *error) {
    const char *options = plan->problem.bf16 ? "-DEPILOGUE=3 -DBF16" : "-DEPILOGUE=3"; /* EPILOGUE_SILU_MUL */
    if (open_library(error) || cuda_enter(plan->device, error)) return -1;
    struct gemm *gemm = plan->state = calloc(1, sizeof *gemm);
    if (!gemm) return error_set(error, "out of memory");
    if (describe(gemm, &plan->problem, error) || choose(plan->device, &plan->problem, gemm, error)) return -1;
    size_t bytes = gemm->sums_bytes + gemm->workspace_bytes;
    if (bytes) plan->workspace_bytes = WORKSPACE_COUNTER_BYTES + bytes;
    if (plan->problem.epilogue != EPILOGUE_SILU_MUL) return 0;
    return device_function(plan->device, "fp16_gemm/silu_mul.cu", "silu_mul", options, 0, &gemm->silu_mul, error);
}

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    const struct gemm *gemm = plan->state;
    if (cuda_enter(plan->device, error)) return -1;
    if (multiply(plan->device, gemm, &gemm->algorithm, gemm->workspace_bytes, operands, error)) return -1;
    return gemm->silu_mul ? silu_mul(plan, operands, error) : 0;
}

/* The slower of moving each byte once and of the multiplications at full rate. */
static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    (void)config;
    double bytes_us = problem_bytes(problem) / device->memory_gbs / 1e3;
    double flops_us = problem_flops(problem) / device->matrix_tflops / 1e6;
    return bytes_us > flops_us ? bytes_us : flops_us;
}

const struct kernel fp16_gemm_cublaslt = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CUDA,
    .name = "cublaslt",
    .summary = "NVIDIA's library, the fastest of its heuristics' candidates: the baseline",
    .peer = true,
    .bf16 = true,
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
    .release = release,
};
