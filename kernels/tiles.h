/* The tile table: which kernel and configuration is best for a problem, per device, as a text file.
 * Depends on libc alone (with POSIX's fsync), so that other programs can vendor tiles.h and tiles.c.
 *
 *     # tilebook table 1
 *     device    NVIDIA H100 80GB HBM3, sm_90a, 132 SMs
 *     software  driver 580.159, cuda 13.0, kernels 5f2c91aa
 *     regime    cold, stream
 *     # op        k     n      g    m        kernel             configuration                us    GB/s  tie default_us
 *     marlin_gemm 5120  7168   128  1-8      marlin_gemm/mma    tile_n=64 stages=6 split_k=4 8.0   2361  2   12.9
 *
 * `g` is 0 for fp16_gemm. `m` is a range, both ends included. `us` and `GB/s` were measured at the
 * range's upper end, `default_us` is the built-in default there, `tie` counts the other
 * configurations within the noise of the best. A configuration is "-" when the kernel has none.
 *
 * Grammar. Lines end in LF or CR LF; the first is the version. Blank lines and lines that start with '#'
 * are skipped. `device`, `software` and `regime` stand once each; their values are read from the right:
 * NAME, ARCHITECTURE, COUNT SMs (or cores) and TEXT, kernels HASH. Every other line is a row of fields
 * separated by blanks: the first six are the columns op to kernel, the last four the numbers, and what
 * lies between is the configuration: a lone "-" or fields that each hold one '=' (no number holds one, so
 * the configuration's end is never in doubt). `m` is "LOW-HIGH", or "M" for a range of one. Numbers are
 * plain decimals in the C locale, whatever locale the program runs in. */
#ifndef TILEBOOK_TILES_H
#define TILEBOOK_TILES_H

#include <stddef.h>
#include <stdio.h>

enum { TILES_VERSION = 1, TILES_MESSAGE = 768 };

struct tile_row {
    char op[24];
    long k, n, group, m_low, m_high;
    char kernel[64];
    char configuration[192]; /* "name=value name=value" */
    double us, gbs;
    int tie;
    double default_us;
};

struct tile_table {
    char device[96]; /* name */
    char architecture[16];
    int multiprocessors; /* SMs of a GPU, cores of a CPU */
    char software[96];   /* as written, without the kernels' hash */
    char kernels[16];    /* hash of the kernel sources that were measured */
    char regime[64];
    struct tile_row *rows; /* sorted by op, k, n, group, m_low */
    size_t count;
};

/* All or nothing: -1 and a message "FILE:LINE: what was found, what is accepted" on anything that is not
 * a well-formed table with sorted rows, no gap and no overlap in M per (op, k, n, group). */
int tiles_read(const char *path, struct tile_table *table, char message[TILES_MESSAGE]);
/* The same from memory; `name` stands for the path in messages. */
int tiles_parse(const char *text, size_t bytes, const char *name, struct tile_table *table,
                char message[TILES_MESSAGE]);
/* Sorts, checks and writes by temporary file and rename; an existing file stays whole on failure. Times are
 * written to 0.01 us, rates to 0.1 GB/s. */
int tiles_write(const char *path, struct tile_table *table, char message[TILES_MESSAGE]);
/* The text of such a file, rows in the order they are in, unchecked. */
void tiles_print(const struct tile_table *table, FILE *stream);
void tiles_free(struct tile_table *table);

/* The row whose range holds m; above the last range the last row; NULL if (op, k, n, group) is not there
 * or m lies below the first range. */
const struct tile_row *tiles_find(const struct tile_table *table, const char *op, long k, long n, long group, long m);

/* -1 and a message naming every difference if the table was made for another device, architecture,
 * number of SMs or kernel sources. */
int tiles_match(const struct tile_table *table, const char *device, const char *architecture, int multiprocessors,
                const char *kernels, char message[TILES_MESSAGE]);

#endif
