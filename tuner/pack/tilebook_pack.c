/* What follows is the same in all packs: it looks rows up, loads cubins and launches them. */

struct tilebook_pack {
    CUmodule modules[FUNCTIONS];
    CUfunction functions[FUNCTIONS];
};

static int compare(const struct tilebook_pack_row *row, const struct tilebook_pack_problem *p) {
    const int a[] = {(int)row->op, row->k, row->n, row->group, row->zeros, (int)row->epilogue, row->m_low};
    const int b[] = {(int)p->op, p->k, p->n, p->group, p->zeros, (int)p->epilogue, p->m};
    for (size_t i = 0; i < sizeof a / sizeof *a; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

/* Rows are sorted, so the last one that does not lie behind the problem is the one, if it is of its kind. */
const struct tilebook_pack_row *tilebook_pack_find(const struct tilebook_pack_problem *problem) {
    size_t low = 0, high = sizeof rows / sizeof *rows;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(&rows[middle], problem) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || problem->m > rows[low - 1].m_high) return NULL;
    struct tilebook_pack_problem lowest = *problem;
    lowest.m = rows[low - 1].m_low;
    return compare(&rows[low - 1], &lowest) ? NULL : &rows[low - 1];
}

static int steps_of(const struct tilebook_pack_row *row, int m) {
    return (m - row->m_first) / row->m_step;
}

size_t tilebook_pack_workspace(const struct tilebook_pack_problem *problem) {
    const struct tilebook_pack_row *row = tilebook_pack_find(problem);
    return row ? row->workspace + (size_t)steps_of(row, problem->m) * row->workspace_step : 0;
}

static CUresult check_device(char message[TILEBOOK_PACK_MESSAGE]) {
    CUdevice device;
    char name[96] = "";
    int major = 0, minor = 0, sms = 0;
    CUresult result = cuCtxGetDevice(&device);
    if (result) return snprintf(message, TILEBOOK_PACK_MESSAGE, "no context is current"), result;
    cuDeviceGetName(name, sizeof name, device);
    cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
    cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
    cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
    if (10 * major + minor == COMPUTE_CAPABILITY && sms == MULTIPROCESSORS && !strcmp(name, DEVICE))
        return CUDA_SUCCESS;
    snprintf(message, TILEBOOK_PACK_MESSAGE,
             "the pack is for %s, compute capability %d.%d, %d SMs; the current context's device is %s, %d.%d, %d SMs",
             DEVICE, COMPUTE_CAPABILITY / 10, COMPUTE_CAPABILITY % 10, MULTIPROCESSORS, name, major, minor, sms);
    return CUDA_ERROR_INVALID_DEVICE;
}

static CUresult load(const char *folder, const struct function *function, CUmodule *module, CUfunction *handle,
                     char message[TILEBOOK_PACK_MESSAGE]) {
    char path[4096];
    const char *text = "";
    CUresult result = CUDA_ERROR_FILE_NOT_FOUND;
    if (snprintf(path, sizeof path, "%s/%s", folder, function->file) < (int)sizeof path)
        result = cuModuleLoad(module, path);
    if (!result) result = cuModuleGetFunction(handle, *module, function->entry);
    if (!result && function->shared_bytes)
        result = cuFuncSetAttribute(*handle, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, function->shared_bytes);
    if (!result) return result;
    cuGetErrorString(result, &text);
    snprintf(message, TILEBOOK_PACK_MESSAGE, "%.400s/%s: %s", folder, function->file, text ? text : "unknown error");
    return result;
}

CUresult tilebook_pack_open(const char *folder, struct tilebook_pack **result, char message[TILEBOOK_PACK_MESSAGE]) {
    *result = NULL;
    CUresult status = check_device(message);
    if (status) return status;
    struct tilebook_pack *pack = calloc(1, sizeof *pack);
    if (!pack) return snprintf(message, TILEBOOK_PACK_MESSAGE, "out of memory"), CUDA_ERROR_OUT_OF_MEMORY;
    for (int i = 0; i < FUNCTIONS && !status; i++)
        status = load(folder, &functions[i], &pack->modules[i], &pack->functions[i], message);
    if (status)
        tilebook_pack_close(pack);
    else
        *result = pack;
    return status;
}

void tilebook_pack_close(struct tilebook_pack *pack) {
    for (int i = 0; pack && i < FUNCTIONS; i++)
        if (pack->modules[i]) cuModuleUnload(pack->modules[i]);
    free(pack);
}

/* The box map of operand number `tensor->operand`. */
static CUresult encode(const struct tilebook_pack_tensor *tensor, int m, const struct tilebook_pack_operands *operands,
                       CUtensorMap *map) {
    static const CUtensorMapDataType types[] = {[1] = CU_TENSOR_MAP_DATA_TYPE_UINT8,
                                                [2] = CU_TENSOR_MAP_DATA_TYPE_UINT16,
                                                [4] = CU_TENSOR_MAP_DATA_TYPE_UINT32,
                                                [8] = CU_TENSOR_MAP_DATA_TYPE_UINT64};
    const CUdeviceptr all[] = {operands->x,      operands->weights, operands->scales,   operands->zeros,
                               operands->addend, operands->y,       operands->workspace};
    const cuuint64_t sides[] = {(cuuint64_t)tensor->columns, (cuuint64_t)(tensor->rows ? tensor->rows : m)};
    const cuuint64_t row_bytes[] = {sides[0] * (cuuint64_t)tensor->element_bytes};
    const cuuint32_t box[] = {(cuuint32_t)tensor->box_columns, (cuuint32_t)tensor->box_rows}, every[] = {1, 1};
    return cuTensorMapEncodeTiled(map, types[tensor->element_bytes], 2, (void *)(size_t)all[tensor->operand], sides,
                                  row_bytes, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                  tensor->swizzle ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

/* What an entry takes by value: the arguments, and at the next multiple of 64 bytes its tensor maps. */
struct parameters {
    struct {
        struct tilebook_pack_operands given;
        CUdeviceptr gain; /* of a norm, which no row's problem has */
        float epsilon;
    } operands;
    int m, n, k, group, overlaps;
    CUtensorMap maps[4];
};

static CUresult enqueue(const struct tilebook_pack *pack, const struct tilebook_pack_row *row,
                        struct parameters *parameters, CUstream stream) {
    void *list[] = {parameters};
    unsigned steps = (unsigned)steps_of(row, parameters->m);
    CUlaunchAttribute attributes[2] = {{0}}, *next = attributes;
    CUlaunchConfig config = {0};
    config.gridDimX = row->blocks[0] + steps * row->blocks_step[0];
    config.gridDimY = row->blocks[1] + steps * row->blocks_step[1];
    config.gridDimZ = row->blocks[2] + steps * row->blocks_step[2];
    config.blockDimX = (unsigned)row->threads;
    config.blockDimY = config.blockDimZ = 1;
    config.sharedMemBytes = (unsigned)functions[row->function].shared_bytes;
    config.hStream = stream;
    config.attrs = attributes;
    if (row->cluster > 1) {
        next->id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        next->value.clusterDim.x = (unsigned)row->cluster;
        next->value.clusterDim.y = next->value.clusterDim.z = 1;
        next++;
    }
    if (parameters->overlaps) {
        next->id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        next->value.programmaticStreamSerializationAllowed = 1;
        next++;
    }
    config.numAttrs = (unsigned)(next - attributes);
    return cuLaunchKernelEx(&config, pack->functions[row->function], list, NULL);
}

CUresult tilebook_pack_launch(const struct tilebook_pack *pack, const struct tilebook_pack_problem *problem,
                              const struct tilebook_pack_operands *operands, int overlaps, CUstream stream) {
    const struct tilebook_pack_row *row = tilebook_pack_find(problem);
    struct parameters parameters;
    if (!row) return CUDA_ERROR_NOT_FOUND;
    memset(&parameters, 0, sizeof parameters);
    parameters.operands.given = *operands;
    parameters.m = problem->m;
    parameters.n = problem->n;
    parameters.k = problem->k;
    parameters.group = problem->group;
    parameters.overlaps = overlaps && row->overlaps;
    for (int i = 0; i < row->tensor_count; i++) {
        CUresult result = encode(&row->tensors[i], problem->m, operands, &parameters.maps[i]);
        if (result) return result;
    }
    return enqueue(pack, row, &parameters, stream);
}
