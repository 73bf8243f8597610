/* fp16_gemm by plain cuBLAS, which reads the canonical weights as they are. It thinks in columns: y^T (N, M) =
 * W (K, N)^T x (K, M), every leading dimension as the rows lie in memory.
 *   cc -O2 -shared -fPIC -I kernels/peer -I $CUDA_HOME/include tests/peer/cublas.c -L $CUDA_HOME/lib64 -lcublas */
#include <cublas_v2.h>
#include <stdio.h>

#include "tilebook_peer.h"

enum { WORKSPACE_BYTES = 32 << 20 }; /* what cuBLAS takes on Hopper */

static int check(cublasStatus_t status, const char *what, char *why) {
    return status == CUBLAS_STATUS_SUCCESS ? 0 : snprintf(why, TILEBOOK_WHY, "%s: status %d", what, (int)status);
}

static int legal(const struct tilebook_device *device, const struct tilebook_problem *p, char *why) {
    (void)device;
    return p->epilogue == TILEBOOK_EPILOGUE_NONE ? 0 : snprintf(why, TILEBOOK_WHY, "it has no epilogues");
}

static int open(const struct tilebook_device *device, const struct tilebook_problem *p, struct tilebook_needs *needs,
                char *why) {
    cublasHandle_t handle;
    (void)p;
    if (check(cublasCreate(&handle), "cublasCreate", why)) return -1;
    needs->state = handle;
    needs->workspace_bytes = WORKSPACE_BYTES;
    if (!check(cublasSetStream(handle, (cudaStream_t)device->stream), "cublasSetStream", why)) return 0;
    cublasDestroy(handle);
    return -1;
}

static int run(const struct tilebook_call *call, char *why) {
    const struct tilebook_problem *p = call->problem;
    cublasHandle_t handle = call->state;
    const float one = 1, zero = 0;
    if (check(cublasSetWorkspace(handle, call->workspace, WORKSPACE_BYTES), "cublasSetWorkspace", why)) return -1;
    return check(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, p->n, p->m, p->k, &one, call->weights, CUDA_R_16F, p->k,
                              call->x, CUDA_R_16F, p->k, &zero, call->y, CUDA_R_16F, p->n, CUBLAS_COMPUTE_32F,
                              CUBLAS_GEMM_DEFAULT),
                 "cublasGemmEx", why);
}

static void close(void *state) {
    cublasDestroy(state);
}

const struct tilebook_peer tilebook_peer = {.version = TILEBOOK_PEER_VERSION,
                                            .backend = TILEBOOK_ON_CUDA,
                                            .name = "cublas",
                                            .summary = "cuBLAS, by its own choice of algorithm",
                                            .ops = 1u << TILEBOOK_FP16_GEMM,
                                            .legal = legal,
                                            .open = open,
                                            .run = run,
                                            .close = close};
