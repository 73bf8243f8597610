/* One GEMM through a pack with a row for fp16_gemm, K and N: y = x W on the first GPU, and whether y is right.
 *     gcc -I pack example.c pack/tilebook_pack.c -lcuda -o example && ./example pack M N K */
#include "tilebook_pack.h"

#include <stdio.h>
#include <stdlib.h>

static void done(CUresult result, const char *what) {
    const char *text = NULL;
    if (result == CUDA_SUCCESS) return;
    cuGetErrorString(result, &text);
    fprintf(stderr, "%s: %s\n", what, text ? text : "unknown error");
    exit(1);
}

/* A whole number from 0 to 2048 as fp16. */
static unsigned short half(int value) {
    int exponent = 0;
    while (value >> (exponent + 1)) exponent++;
    return (unsigned short)(value ? ((exponent + 15) << 10) + ((value << 10 >> exponent) - 1024) : 0);
}

static CUdeviceptr upload(const unsigned short *data, size_t count) {
    CUdeviceptr memory;
    done(cuMemAlloc(&memory, 2 * count), "cuMemAlloc");
    done(cuMemcpyHtoD(memory, data, 2 * count), "cuMemcpyHtoD");
    return memory;
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "usage: example FOLDER M N K\n"), 2;
    int m = atoi(argv[2]), n = atoi(argv[3]), k = atoi(argv[4]);
    struct tilebook_pack_problem problem = {TILEBOOK_PACK_FP16_GEMM, m, n, k, 0, 0, TILEBOOK_PACK_NONE};
    size_t xs = (size_t)m * k, ws = (size_t)n * k, ys = (size_t)m * n, bytes = tilebook_pack_workspace(&problem);
    unsigned short *x = calloc(xs + ws + ys, 2), *w = x + xs, *y = w + ws;
    struct tilebook_pack_operands operands = {0};
    struct tilebook_pack *pack;
    char message[TILEBOOK_PACK_MESSAGE];
    CUcontext context;
    CUdevice device;
    /* Row i of x holds 1, 2, 4 or 8, column j of W has j % 128 ones: y is their product. */
    for (size_t i = 0; i < xs; i++) x[i] = half(1 << i / k % 4);
    for (size_t i = 0; i < ws; i++) w[i] = half(i % k < i / k % 128);
    done(cuInit(0), "cuInit");
    done(cuDeviceGet(&device, 0), "cuDeviceGet");
    done(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    done(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    if (tilebook_pack_open(argv[1], &pack, message)) return fprintf(stderr, "%s\n", message), 1;
    operands.x = upload(x, xs);
    operands.weights = upload(w, ws);
    operands.y = upload(y, ys);
    if (bytes) done(cuMemAlloc(&operands.workspace, bytes), "cuMemAlloc");
    if (bytes) done(cuMemsetD8(operands.workspace, 0, bytes), "cuMemsetD8");
    done(tilebook_pack_launch(pack, &problem, &operands, 0, NULL), "tilebook_pack_launch");
    done(cuMemcpyDtoH(y, operands.y, 2 * ys), "cuMemcpyDtoH");
    for (size_t i = 0; i < ys; i++)
        if (y[i] != half((int)(i % n % 128) << i / n % 4)) return fprintf(stderr, "y[%zu] is wrong\n", i), 1;
    printf("%s: %zu elements of y are right\n", tilebook_pack_find(&problem)->kernel, ys);
    return 0;
}
