/* A tile table as a pack: what each of its rows launches as constants of a C file, and the cubins that it loads, for
 * programs that have neither these sources nor a run-time compiler. pack/tilebook_pack.h is what such a program sees.
 */
#ifndef TILEBOOK_PACK_EXPORT_H
#define TILEBOOK_PACK_EXPORT_H

#include "kernels/kernel.h"
#include "kernels/tiles.h"

/* Above a table's last range its last row goes on to this M; the decoder's longest prompt. */
enum { PACK_MOST_M = 32768 };

/* What is launched from problem.m to m_high: `launch` is that at problem.m, where m_first <= problem.m. A step is
 * m_step of M, counted from m_first; each adds so many blocks and bytes of workspace. */
struct pack_row {
    struct problem problem;
    int m_high;
    const struct kernel *kernel;
    struct config config;
    int function;
    struct launch launch;
    int m_first, m_step;
    unsigned blocks_step[3];
    size_t workspace, workspace_step;
    bool workspace_is_largest;
    bool rows_are_m[MAX_TENSORS];
};

/* One entry of one cubin; the problem is one that it computes. */
struct pack_function {
    const struct kernel *kernel;
    struct problem problem;
    struct config config;
    struct launch launch;
    char options[LAUNCH_OPTIONS];
};

struct pack {
    const struct tile_table *table;
    struct device device; /* what kernels are told of the table's */
    struct pack_row *rows;
    struct pack_function *functions;
    int row_count, function_count;
};

/* Lines of words for the user. */
typedef void pack_note(void *context, const char *line);

/* The rows of a table made with these kernels' sources for a GPU. A GEMM's are there for each epilogue of the set (1 <<
 * EPILOGUE_..), all but fp16_gemm's with zero points and without. Where a row's kernel is no launch of a cubin
 * (cuBLASLt) or cannot run, the built-in default of those that are one is taken, chosen anew at each power of two; a
 * note says so. Errors: a table of a CPU, of an unknown architecture, of other sources; nothing to pack. */
int pack_make(const struct tile_table *table, unsigned epilogues, pack_note *note, void *context, struct pack *pack,
              struct error *error);
void pack_free(struct pack *pack);
/* Compiles on all cores (no GPU needed) and writes cubins, C file, header and table into a folder that is new or empty:
 * either all of them or none. */
int pack_write(const struct pack *pack, const char *folder, struct error *error);

#endif
