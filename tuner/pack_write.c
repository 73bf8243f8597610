#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/ahead.h"
#include "tuner/export.h"
#include "tuner/pack.h"
#ifdef TILEBOOK_CUDA
#include "kernels/cuda/driver.h"
#else
static int cuda_compile(const char *source, const char *options, const char *architecture, void **cubin, size_t *bytes,
                        struct error *error) {
    (void)options, (void)architecture, (void)cubin, (void)bytes;
    return error_set(error,
                     "%s: this build has no CUDA backend to compile it; for one install the CUDA Toolkit (12.4 or "
                     "newer), then run `make clean` and `make CUDA_HOME=...`",
                     source);
}
#endif

/* The files of pack/, embedded. */
extern const char pack_h[], pack_c[];

static const char *const op_names[] = {
    [OP_AWQ_DEQUANT] = "AWQ_DEQUANT", [OP_MARLIN_GEMM] = "MARLIN_GEMM", [OP_FP16_GEMM] = "FP16_GEMM"};
static const char *const epilogue_names[] = {[EPILOGUE_NONE] = "NONE",
                                             [EPILOGUE_BIAS] = "BIAS",
                                             [EPILOGUE_RESIDUAL] = "RESIDUAL",
                                             [EPILOGUE_SILU_MUL] = "SILU_MUL"};

enum { FILE_NAME = 96, PATH = 4096 };

static const char *cubin_name(const struct pack *pack, int index, char name[FILE_NAME]) {
    const struct pack_function *f = &pack->functions[index];
    snprintf(name, FILE_NAME, "%s-%s-%d.cubin", op_name(f->kernel->op), f->kernel->name, index);
    return name;
}

/* --- the C file --- */

static void print_head(const struct pack *pack, FILE *stream) {
    const struct tile_table *table = pack->table;
    fputs("/* Made by `tilebook table export --format pack`; tilebook_pack.h says what for. */\n"
          "#include \"tilebook_pack.h\"\n\n"
          "#include <stdio.h>\n"
          "#include <stdlib.h>\n"
          "#include <string.h>\n\n",
          stream);
    fputs("/* The table's device, and what it was measured with. */\n#define DEVICE ", stream);
    export_c_string(stream, table->device);
    fprintf(stream, "\nenum { COMPUTE_CAPABILITY = %d, MULTIPROCESSORS = %d };\n", pack->device.compute_capability,
            table->multiprocessors);
    fprintf(stream, "/* %s, kernels %s; %s */\n\n", table->software, table->kernels, table->regime);
}

static void print_functions(const struct pack *pack, FILE *stream) {
    char name[FILE_NAME];
    fprintf(stream,
            "enum { FUNCTIONS = %d };\n"
            "static const struct function {\n"
            "    const char *file, *entry;\n"
            "    int shared_bytes;\n"
            "} functions[FUNCTIONS] = {\n",
            pack->function_count);
    for (int i = 0; i < pack->function_count; i++) {
        const struct pack_function *f = &pack->functions[i];
        fprintf(stream, "    /* %s %s */\n    {\"%s\", \"%s\", %zu},\n", f->launch.source, f->options,
                cubin_name(pack, i, name), f->launch.entry, f->launch.shared_bytes);
    }
    fputs("};\n\n", stream);
}

static void print_tensors(const struct pack_row *row, FILE *stream) {
    fprintf(stream, "%d, {", row->launch.tensor_count);
    for (int i = 0; i < row->launch.tensor_count; i++) {
        const struct launch_tensor *l = &row->launch.tensors[i];
        const struct device_tensor *t = &l->tensor;
        fprintf(stream, "%s{%zu, %d, %zu, %zu, %d, %d, %d}", i ? ", " : "", l->operand / sizeof(void *),
                t->element_bytes, row->rows_are_m[i] ? 0 : t->rows, t->columns, t->box_rows, t->box_columns,
                t->swizzle);
    }
    fputs(row->launch.tensor_count ? "}" : "{0, 0, 0, 0, 0, 0, 0}}", stream);
}

static void print_row(const struct pack_row *row, FILE *stream) {
    const struct problem *p = &row->problem;
    const struct device_grid *grid = &row->launch.grid;
    char kernel[64], configuration[MAX_CONFIG_TEXT];
    fprintf(stream,
            "    {TILEBOOK_PACK_%s, %d, %d, %d, %d, TILEBOOK_PACK_%s, %d, %d,\n"
            "     \"%s\", \"%s\",\n",
            op_names[p->op], p->k, p->n, p->group, p->zeros, epilogue_names[p->epilogue], p->m, row->m_high,
            kernel_full_name(row->kernel, kernel), config_text(row->kernel, &row->config, configuration));
    fprintf(stream, "     %d, %u, %u, %d, %d, %d, {%u, %u, %u}, {%u, %u, %u}, %zu, %zu, ", row->function, grid->threads,
            grid->cluster > 1 ? grid->cluster : 1, grid->overlaps, row->m_first, row->m_step, grid->blocks[0],
            grid->blocks[1], grid->blocks[2], row->blocks_step[0], row->blocks_step[1], row->blocks_step[2],
            row->workspace, row->workspace_step);
    print_tensors(row, stream);
    fputs("},\n", stream);
}

static void print_code(const struct pack *pack, FILE *stream) {
    print_head(pack, stream);
    print_functions(pack, stream);
    fputs("/* op, k, n, group, zeros, epilogue, m_low, m_high;\n"
          "   kernel, configuration;\n"
          "   function, threads, cluster, overlaps, m_first, m_step, blocks, blocks_step, workspace, workspace_step,\n"
          "   tensor_count, tensors */\n"
          "static const struct tilebook_pack_row rows[] = {\n",
          stream);
    for (int i = 0; i < pack->row_count; i++) print_row(&pack->rows[i], stream);
    fputs("};\n\n", stream);
    fputs(pack_c, stream);
}

/* --- the files --- */

static int cannot_write(const char *path, struct error *error) {
    return error_set(error, "%s: cannot write: %s", path, strerror(errno));
}

static int write_file(const char *folder, const char *name, const void *data, size_t bytes, struct error *error) {
    char path[PATH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    int bad = !file || fwrite(data, 1, bytes, file) != bytes;
    if (file) bad |= fclose(file);
    return bad ? cannot_write(path, error) : 0;
}

static int write_code(const struct pack *pack, const char *folder, struct error *error) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    if (!stream) return error_set(error, "out of memory");
    print_code(pack, stream);
    int status =
        fclose(stream) ? error_set(error, "out of memory") : write_file(folder, "tilebook_pack.c", text, bytes, error);
    free(text);
    return status;
}

static int write_table(const struct pack *pack, const char *folder, struct error *error) {
    char path[PATH], message[TILES_MESSAGE];
    struct tile_table copy = *pack->table;
    snprintf(path, sizeof path, "%s/tiles.txt", folder);
    return tiles_write(path, &copy, message) ? error_set(error, "%s", message) : 0;
}

/* Into the cubin cache, on all cores; what fails there fails again below, and says why. */
static void compile_all(const struct pack *pack) {
    struct ahead *ahead = ahead_create(&pack->device, plan_compile, (int)sysconf(_SC_NPROCESSORS_ONLN));
    for (int i = 0; ahead && i < pack->function_count; i++) {
        const struct pack_function *f = &pack->functions[i];
        ahead_plan(ahead, 0, f->kernel, &f->problem, &f->config);
    }
    if (ahead) ahead_wait(ahead);
    ahead_destroy(ahead);
}

static int write_cubins(const struct pack *pack, const char *folder, struct error *error) {
    compile_all(pack);
    for (int i = 0; i < pack->function_count; i++) {
        const struct pack_function *f = &pack->functions[i];
        char name[FILE_NAME];
        void *cubin = NULL;
        size_t bytes = 0;
        if (cuda_compile(f->launch.source, f->options, pack->device.architecture, &cubin, &bytes, error)) return -1;
        int status = write_file(folder, cubin_name(pack, i, name), cubin, bytes, error);
        free(cubin);
        if (status) return -1;
    }
    return 0;
}

/* Of the files in it and of the folder itself. */
static void remove_folder(const char *folder) {
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[PATH];
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path) unlink(path);
    }
    if (dir) closedir(dir);
    rmdir(folder);
}

/* rename() would say so too, but only when all is compiled. */
static int check_folder(const char *folder, struct error *error) {
    DIR *dir = opendir(folder);
    int entries = 0;
    if (!dir) return errno == ENOENT ? 0 : cannot_write(folder, error);
    while (readdir(dir)) entries++;
    closedir(dir);
    return entries > 2
               ? error_set(error, "%s: the folder is not empty; a pack is written to a new or an empty one", folder)
               : 0;
}

int pack_write(const struct pack *pack, const char *folder, struct error *error) {
    char temporary[PATH];
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    if (snprintf(temporary, sizeof temporary, "%.*s.%ld.tmp", (int)length, folder, (long)getpid()) >=
        PATH - FILE_NAME - 1)
        return error_set(error, "%.200s...: the folder's name is too long", folder);
    if (check_folder(folder, error)) return -1;
    if (mkdir(temporary, 0777)) return cannot_write(temporary, error);
    int status = write_cubins(pack, temporary, error) || write_code(pack, temporary, error) ||
                 write_table(pack, temporary, error) ||
                 write_file(temporary, "tilebook_pack.h", pack_h, strlen(pack_h), error);
    if (!status && rename(temporary, folder)) status = cannot_write(folder, error);
    if (status) remove_folder(temporary);
    return status ? -1 : 0;
}
