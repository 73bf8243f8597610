/* The description of a kernel: the one thing that sweep, tuner, linter, verifier, decoder, plots and
 * tests read. A kernel is data: its op, its name, its tile parameters with their values, and functions.
 * A new kernel touches its own folder and one line of registry.c.
 *
 * Shapes. y = x W: x (M, K), y (M, N), row-major, fp16 or, where a problem says `bf16`, bf16; W (K, N) in the layout of
 * the op:
 *   fp16_gemm    weights (N, K) row-major, of x's type, as a linear's `weight` lies in a checkpoint ([out, in]);
 *                bf16 has no op of its own: it is the same GEMM of 16-bit numbers
 *   marlin_gemm  weights int32 (K/16, 2N), scales fp16 (K/group, N), zeros int32 (K/group, N/8), all in
 *                Marlin's order; zeros == NULL means zero point 8 everywhere (symmetric). Scales are fp16, whatever
 *                x is: checkpoints quantised to 4 bits have them so
 *   awq_dequant  weights int32 (K, N/8), scales fp16 (K/group, N), zeros int32 (K/group, N/8), as AWQ
 *                stores them; writes y fp16 (N, K) row-major: the weights that fp16_gemm reads
 * Where a problem says `norm`, each row of x is first divided by the square root of (the mean of its squares + epsilon)
 * and multiplied by a gain for each k (RMSNorm).
 * Accumulation is fp32 (at least); an epilogue sees the fp32 sums, and y is rounded once. */
#ifndef TILEBOOK_KERNEL_H
#define TILEBOOK_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/device.h"
#include "kernels/error.h"

enum op { OP_AWQ_DEQUANT, OP_MARLIN_GEMM, OP_FP16_GEMM, OP_COUNT };

/* What a GEMM does with its sums before it writes them. Device code knows them by these numbers: -DEPILOGUE=0 .. 3.
 *   bias      y = x W + addend, addend (N), of y's type
 *   residual  y = x W + addend, addend (M, N), of y's type, which may be y itself
 *   silu_mul  y (M, N/2): of every 16 columns of W the first 8 are gates and the others what they multiply,
 *             y[m, 8b + r] = silu(s[m, 16b + r]) * s[m, 16b + 8 + r] with s = x W, silu(v) = v / (1 + e^-v) */
enum epilogue { EPILOGUE_NONE, EPILOGUE_BIAS, EPILOGUE_RESIDUAL, EPILOGUE_SILU_MUL, EPILOGUE_COUNT };

struct problem {
    enum op op;
    int m; /* rows of x; 1 for awq_dequant */
    int n, k;
    int group;              /* rows of W that share a scale; k itself for one group; 0 for fp16_gemm */
    bool zeros;             /* zero points stored (AWQ) or 8 everywhere (symmetric GPTQ); false for fp16_gemm */
    enum epilogue epilogue; /* EPILOGUE_NONE for awq_dequant */
    bool norm;              /* of x; false for awq_dequant */
    bool bf16;              /* x, addend, y and fp16_gemm's weights: bf16, not fp16; false for awq_dequant */
};

enum { MAX_PARAMETERS = 8, MAX_VALUES = 10, MAX_PARAMETER_NAME = 15, MAX_CONFIG_TEXT = 192 };

/* One tile parameter and every value that may be tried. The CUDA backend passes it to the device
 * code as the macro of its name in capitals: "tile_m" = 16 becomes -DTILE_M=16. */
struct parameter {
    const char *name;
    const char *help; /* a few words, with the unit */
    int count;
    int values[MAX_VALUES];
};

/* A configuration: one value for each parameter of its kernel, in the kernel's order. */
struct config {
    int value[MAX_PARAMETERS];
};

/* Device pointers of one call. Layouts as above. */
struct operands {
    const void *x;
    const void *weights;
    const void *scales;
    const void *zeros;
    const void *addend; /* as the epilogue says; NULL where it adds nothing */
    void *y;
    void *workspace;   /* plan.workspace_bytes; its first WORKSPACE_COUNTER_BYTES are zero before and after */
    const float *gain; /* (K), constant, as weights are; NULL without a norm */
    float epsilon;
};

enum { WORKSPACE_COUNTER_BYTES = 65536 };

/* What a CUDA kernel compiles and launches. Shared memory, grid and block follow from the
 * configuration and are never tuned themselves. The entry takes one `struct arguments` by value
 * below. */
struct arguments {
    struct operands operands;
    int m, n, k, group;
    int overlaps; /* whether weights may be read before the launch ahead has ended */
};

/* Which of the operands is such a matrix, by its place in struct operands. */
struct launch_tensor {
    size_t operand; /* offsetof(struct operands, x) */
    struct device_tensor tensor;
};
enum { MAX_TENSORS = 4 };

struct launch {
    const char *source; /* embedded file, "marlin_gemm/mma.cu" */
    const char *entry;  /* extern "C" name */
    char options[192];  /* "-D..." beyond the parameters, separated by spaces */
    struct device_grid grid;
    size_t shared_bytes;    /* dynamic */
    size_t workspace_bytes; /* 0, or at least WORKSPACE_COUNTER_BYTES */
    int tensor_count;       /* their maps follow the arguments that the entry takes, at the next multiple of 64 bytes */
    struct launch_tensor tensors[MAX_TENSORS];
};

struct plan;

struct kernel {
    enum op op;
    enum backend backend;
    const char *name;    /* "mma", "cublaslt", "cpu"; with its op: "marlin_gemm/mma" */
    const char *summary; /* one line for `tilebook kernels` */
    bool peer;           /* someone else's: the built-in default only where there is no other */
    bool norms;          /* takes problems with a norm */
    bool bf16;           /* takes problems in bf16 */
    int parameter_count; /* 0 for a kernel with nothing to tune */
    struct parameter parameters[MAX_PARAMETERS];

    /* 0 if this configuration can run this problem on this device; else -1 and which rule it breaks.
     * Legal is not fast: it says what runs correctly. NULL accepts all. */
    int (*legal)(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why);
    /* The same where it takes the kernel itself to tell: those of peers. NULL accepts all. */
    int (*accepts)(const struct kernel *kernel, const struct device *device, const struct problem *problem,
                   struct error *why);
    /* Expected microseconds; orders a search and picks the built-in default. Only its order matters, also among the
     * kernels of an op. */
    double (*estimate)(const struct device *device, const struct problem *problem, const struct config *config);
    /* CUDA kernels compiled by NVRTC: fills `launch` (already zeroed). NULL for others. */
    void (*launch)(const struct device *device, const struct problem *problem, const struct config *config,
                   struct launch *launch);
    /* Kernels that are not an NVRTC launch: prepare may set plan->state and plan->workspace_bytes, run
     * enqueues one call on the device's stream, release frees the state. prepare and release may be NULL, and so may
     * compile where prepare compiles nothing; else it does that into the cubin cache alone, as plan_compile. */
    int (*compile)(const struct device *device, const struct problem *problem, const struct config *config,
                   struct error *error);
    int (*prepare)(struct plan *plan, struct error *error);
    /* For weights in a form of the kernel's own, kept by the plan: makes it of each of `count` operands, one of which
     * every run then gets. Their workspaces are there already. NULL where canonical weights are read. */
    int (*prepare_weights)(const struct plan *plan, const struct operands *copies, int count, struct error *error);
    int (*run)(const struct plan *plan, const struct operands *operands, struct error *error);
    void (*release)(struct plan *plan);
};

/* A kernel made ready for one problem on one device: compiled, loaded, checked. */
struct plan {
    struct device *device;
    const struct kernel *kernel;
    struct problem problem;
    struct config config;
    struct launch launch;
    size_t workspace_bytes;
    struct device_function *function; /* of kernels with a launch */
    void *state;                      /* of kernels without */
};

/* All NVRTC options of a launch: its own, a GEMM's epilogue, -DBF16 if it is in bf16, then a macro for each tile
 * parameter. */
enum { LAUNCH_OPTIONS = 512 };
void launch_options(const struct kernel *kernel, const struct problem *problem, const struct config *config,
                    const struct launch *launch, char options[LAUNCH_OPTIONS]);

/* Checks the problem and the configuration, compiles (or finds in the cache) and loads. */
int plan_create(struct device *device, const struct kernel *kernel, const struct problem *problem,
                const struct config *config, struct plan **plan, struct error *error);
/* Compiles what plan_create would, into the cubin cache alone; from any thread. Nothing to do for a kernel without
 * device code. The configuration must be legal. */
int plan_compile(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                 const struct config *config, struct error *error);
/* Enqueues one call; asynchronous on a GPU. */
int plan_run(const struct plan *plan, const struct operands *operands, struct error *error);
void plan_destroy(struct plan *plan);

/* --- the registry (registry.c) --- */

enum { MAX_KERNELS = 64 };
/* The kernels in their order; NULL ends it. */
const struct kernel *const *kernel_list(void);
/* One more at the end, for as long as the process lives. Errors: the name is there already, no room is left, or what
 * kernel_list_check would find. Not while other threads read the list. */
int kernel_register(const struct kernel *kernel, struct error *error);
/* "marlin_gemm/mma"; NULL if there is none. */
const struct kernel *kernel_find(const char *full_name);
/* "marlin_gemm/mma" into `text` (at least 64 bytes), returned. */
const char *kernel_full_name(const struct kernel *kernel, char *text);
/* Registration checks: called once at start and by a test; the message names the bad entry. */
int kernel_list_check(struct error *error);

const char *op_name(enum op op);
int op_parse(const char *text, enum op *op, struct error *error);

/* --- problems (problem.c) --- */

const char *epilogue_name(enum epilogue epilogue);
int epilogue_parse(const char *text, enum epilogue *epilogue, struct error *error);

/* What a GEMM does besides its product, "none", "bias", "norm" or "norm+bias", into `text` (FUSED_TEXT), returned; and
 * back. */
enum { FUSED_TEXT = 24 };
const char *problem_fused(const struct problem *problem, char text[FUSED_TEXT]);
int problem_fuse(struct problem *problem, const char *text, struct error *error);
/* 0 if the op is defined for these numbers (K % 128, N % 64, group in {32, 64, 128, K}, M >= 1, ...). */
int problem_check(const struct problem *problem, struct error *error);
bool problem_equal(const struct problem *a, const struct problem *b);
/* Multiplications and additions, counted as two, without the epilogue; for awq_dequant one subtraction and one
 * product a weight. */
double problem_flops(const struct problem *problem);
/* Fewest bytes between memory and chip: each operand once. */
double problem_bytes(const struct problem *problem);
/* Bytes of each operand. */
struct operand_bytes {
    size_t x, weights, scales, zeros, addend, gain, y;
};
struct operand_bytes problem_operand_bytes(const struct problem *problem);
/* Elements of y: M*N, half as many for silu_mul, N*K for awq_dequant. */
size_t problem_outputs(const struct problem *problem);
/* "marlin_gemm m=16 n=5120 k=5120 group=128 zeros=1" into `text` (at least 128 bytes), returned; with an epilogue
 * " epilogue=bias" behind it, with a norm " norm", in bf16 " bf16". */
const char *problem_text(const struct problem *problem, char *text);

/* --- configurations (config.c) --- */

/* "tile_m=16 tile_n=128" into `text` (MAX_CONFIG_TEXT), returned; "-" without parameters. */
const char *config_text(const struct kernel *kernel, const struct config *config, char *text);
/* Reads "name=value" separated by spaces or commas, every parameter exactly once ("-" for none).
 * Errors name the unknown, missing or repeated parameter, or the value and those accepted. */
int config_parse(const struct kernel *kernel, const char *text, struct config *config, struct error *error);
/* 0 if the values are listed ones and the kernel finds the configuration legal. */
int config_legal(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                 const struct config *config, struct error *why);
/* Size of the whole space, legal or not. */
long config_space(const struct kernel *kernel);
/* The index-th configuration of the space, 0 <= index < config_space. */
struct config config_at(const struct kernel *kernel, long index);
/* The legal configuration of this kernel with the least estimate (choice.h: of all kernels). -1 if none is legal. */
int config_default(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                   struct config *config, struct error *error);

#endif
