#include "tiles.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LEADING = 6,  /* columns before the configuration */
    TRAILING = 4, /* columns behind it */
    COLUMNS = LEADING + 1 + TRAILING,
    MAX_FIELDS = 64,
    MAX_FILE = 64 << 20,
};

static const double largest = 1e11; /* of times and rates */

static const char *const column_names[COLUMNS] = {"op", "k",    "n",   "g",         "m", "kernel", "configuration",
                                                  "us", "GB/s", "tie", "default_us"};

/* A piece of the text that is being read. */
struct span {
    const char *at;
    size_t length;
};

struct reader {
    const char *name;
    size_t line;
    struct tile_table *table;
    size_t capacity;
    size_t first_line[3]; /* of device, software, regime; 0 while unseen */
    char *message;
};

static int fail(char *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(char *message, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, TILES_MESSAGE, format, arguments);
    va_end(arguments);
    return -1;
}

static int fail_at(const struct reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "FILE:LINE: ..." */
static int fail_at(const struct reader *reader, const char *format, ...) {
    int used = snprintf(reader->message, TILES_MESSAGE, "%.400s:%zu: ", reader->name, reader->line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reader->message + used, TILES_MESSAGE - (size_t)used, format, arguments);
    va_end(arguments);
    return -1;
}

/* Arguments of "%.*s" that quote a span, cut where it is long. */
#define QUOTE(span) (int)((span).length < 60 ? (span).length : 60), (span).at

static int is_blank(char c) {
    return c == ' ' || c == '\t';
}

static struct span trim(struct span s) {
    while (s.length && is_blank(*s.at)) s.at++, s.length--;
    while (s.length && is_blank(s.at[s.length - 1])) s.length--;
    return s;
}

static int span_is(struct span s, const char *text) {
    return s.length == strlen(text) && !memcmp(s.at, text, s.length);
}

/* Takes what follows the last `separator` off the end of *s; *s itself may be that. */
static struct span take_last(struct span *s, char separator) {
    size_t start = s->length;
    while (start && s->at[start - 1] != separator) start--;
    struct span last = {s->at + start, s->length - start};
    s->length = start ? start - 1 : 0;
    *s = trim(*s);
    return trim(last);
}

static int copy_text(const struct reader *reader, struct span s, const char *what, char *to, size_t size) {
    if (!s.length) return fail_at(reader, "%s is empty", what);
    if (s.length >= size)
        return fail_at(reader, "%s '%.*s...' has %zu bytes; at most %zu are accepted", what, QUOTE(s), s.length,
                       size - 1);
    memcpy(to, s.at, s.length);
    to[s.length] = 0;
    return 0;
}

static int parse_integer(struct span s, long least, long *value) {
    if (!s.length || s.length > 10) return -1;
    int64_t sum = 0;
    for (size_t i = 0; i < s.length; i++) {
        if (s.at[i] < '0' || s.at[i] > '9') return -1;
        sum = sum * 10 + (s.at[i] - '0');
    }
    if (sum < least || sum > INT_MAX) return -1;
    *value = (long)sum;
    return 0;
}

static int read_integer(const struct reader *reader, struct span s, int column, long least, long *value) {
    if (!parse_integer(s, least, value)) return 0;
    return fail_at(reader, "%s is '%.*s'; accepted: a whole number from %ld to %d", column_names[column], QUOTE(s),
                   least, INT_MAX);
}

/* strtod follows the locale; this does not. 15 digits and their power of ten are exact, so the quotient is
 * rounded once. */
static int read_decimal(const struct reader *reader, struct span s, int column, double *value) {
    int64_t digits = 0, scale = 1;
    int count = 0, point = 0, bad = 0;
    for (size_t i = 0; i < s.length && count <= 15; i++) {
        if (s.at[i] >= '0' && s.at[i] <= '9') {
            digits = digits * 10 + (s.at[i] - '0');
            scale *= point ? 10 : 1;
            count++;
        } else if (s.at[i] != '.' || point++) {
            bad = 1;
            break;
        }
    }
    *value = (double)digits / (double)scale;
    if (bad || !count || count > 15 || *value > largest)
        return fail_at(reader, "%s is '%.*s'; accepted: a decimal number like 12.34, up to 1e11, of at most 15 digits",
                       column_names[column], QUOTE(s));
    return 0;
}

/* "LOW-HIGH" or "M" */
static int read_range(const struct reader *reader, struct span s, long *low, long *high) {
    struct span first = s, last = take_last(&first, '-');
    if (last.length == s.length) first = last;
    if (parse_integer(first, 1, low) || parse_integer(last, 1, high) || *low > *high)
        return fail_at(reader, "m is '%.*s'; accepted: LOW-HIGH with 1 <= LOW <= HIGH, or one number", QUOTE(s));
    return 0;
}

/* "-", or name=value fields, which are joined by one blank each. */
static int read_configuration(const struct reader *reader, const struct span *fields, int count, char *to,
                              size_t size) {
    if (count == 1 && span_is(fields[0], "-")) return copy_text(reader, fields[0], "configuration", to, size);
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        const char *equals = memchr(fields[i].at, '=', fields[i].length);
        const char *end = fields[i].at + fields[i].length;
        if (!equals || equals == fields[i].at || equals + 1 == end ||
            memchr(equals + 1, '=', (size_t)(end - equals) - 1))
            return fail_at(reader, "configuration has '%.*s'; accepted: name=value, or a lone '-'", QUOTE(fields[i]));
        if (used + fields[i].length + 2 > size)
            return fail_at(reader, "the configuration is longer than %zu bytes", size - 1);
        if (i) to[used++] = ' ';
        memcpy(to + used, fields[i].at, fields[i].length);
        used += fields[i].length;
    }
    to[used] = 0;
    return 0;
}

static int compare_keys(const struct tile_row *a, const char *op, long k, long n, long group) {
    int order = strcmp(a->op, op);
    if (order) return order;
    if (a->k != k) return a->k < k ? -1 : 1;
    if (a->n != n) return a->n < n ? -1 : 1;
    return (a->group > group) - (a->group < group);
}

static int compare_rows(const void *left, const void *right) {
    const struct tile_row *a = left, *b = right;
    int order = compare_keys(a, b->op, b->k, b->n, b->group);
    return order ? order : (a->m_low > b->m_low) - (a->m_low < b->m_low);
}

/* A row may follow another with a greater key, or with the same and the range that comes next. */
static int check_order(const struct reader *reader, const struct tile_row *before, const struct tile_row *row) {
    int order = compare_keys(before, row->op, row->k, row->n, row->group);
    if (order > 0)
        return fail_at(reader, "%s %ld %ld %ld comes after %s %ld %ld %ld; rows are sorted by op, k, n, g, m", row->op,
                       row->k, row->n, row->group, before->op, before->k, before->n, before->group);
    if (order < 0 || row->m_low == before->m_high + 1) return 0;
    const char *fault = row->m_low > before->m_high ? "leaves a gap behind" : "overlaps";
    return fail_at(reader, "m %ld-%ld of %s %ld %ld %ld %s m %ld-%ld; the next range must start at %ld", row->m_low,
                   row->m_high, row->op, row->k, row->n, row->group, fault, before->m_low, before->m_high,
                   before->m_high + 1);
}

static int read_row(const struct reader *reader, const struct span *fields, int count, struct tile_row *row) {
    if (count <= LEADING + TRAILING)
        return fail_at(reader, "%d fields; a row has: op k n g m kernel configuration us GB/s tie default_us", count);
    const struct span *last = fields + count - TRAILING;
    long tie = 0;
    if (copy_text(reader, fields[0], "op", row->op, sizeof row->op)) return -1;
    if (read_integer(reader, fields[1], 1, 1, &row->k) || read_integer(reader, fields[2], 2, 1, &row->n)) return -1;
    if (read_integer(reader, fields[3], 3, 0, &row->group)) return -1;
    if (read_range(reader, fields[4], &row->m_low, &row->m_high)) return -1;
    if (copy_text(reader, fields[5], "kernel", row->kernel, sizeof row->kernel)) return -1;
    if (read_configuration(reader, fields + LEADING, count - LEADING - TRAILING, row->configuration,
                           sizeof row->configuration))
        return -1;
    if (read_decimal(reader, last[0], 7, &row->us) || read_decimal(reader, last[1], 8, &row->gbs)) return -1;
    if (read_integer(reader, last[2], 9, 0, &tie) || read_decimal(reader, last[3], 10, &row->default_us)) return -1;
    row->tie = (int)tie;
    return 0;
}

static int append_row(struct reader *reader, const struct span *fields, int count) {
    struct tile_table *table = reader->table;
    if (table->count == reader->capacity) {
        size_t capacity = reader->capacity ? 2 * reader->capacity : 64;
        struct tile_row *rows = realloc(table->rows, capacity * sizeof *rows);
        if (!rows) return fail_at(reader, "out of memory");
        table->rows = rows;
        reader->capacity = capacity;
    }
    struct tile_row *row = &table->rows[table->count];
    if (read_row(reader, fields, count, row)) return -1;
    if (table->count && check_order(reader, row - 1, row)) return -1;
    table->count++;
    return 0;
}

/* NAME, ARCHITECTURE, COUNT SMs */
static int read_device(const struct reader *reader, struct span value) {
    struct tile_table *table = reader->table;
    struct span name = value, units = take_last(&name, ','), architecture = take_last(&name, ',');
    struct span number = units, unit = take_last(&number, ' ');
    long count = 0;
    if (!name.length || !architecture.length || !(span_is(unit, "SMs") || span_is(unit, "cores")) ||
        parse_integer(number, 1, &count))
        return fail_at(reader, "device is '%.*s'; accepted: NAME, ARCHITECTURE, COUNT SMs (or cores)", QUOTE(value));
    table->multiprocessors = (int)count;
    if (copy_text(reader, architecture, "the architecture", table->architecture, sizeof table->architecture)) return -1;
    return copy_text(reader, name, "the device's name", table->device, sizeof table->device);
}

/* TEXT, kernels HASH */
static int read_software(const struct reader *reader, struct span value) {
    struct tile_table *table = reader->table;
    struct span text = value, kernels = take_last(&text, ','), word = kernels, hash = take_last(&word, ' ');
    if (!text.length || !span_is(word, "kernels"))
        return fail_at(reader, "software is '%.*s'; accepted: TEXT, kernels HASH", QUOTE(value));
    if (copy_text(reader, hash, "the kernels' hash", table->kernels, sizeof table->kernels)) return -1;
    return copy_text(reader, text, "software", table->software, sizeof table->software);
}

static const char *const keywords[3] = {"device", "software", "regime"};

static int read_keyword(struct reader *reader, int keyword, struct span value) {
    struct tile_table *table = reader->table;
    if (reader->first_line[keyword])
        return fail_at(reader, "a second '%s' line; the first is line %zu", keywords[keyword],
                       reader->first_line[keyword]);
    reader->first_line[keyword] = reader->line;
    if (keyword == 0) return read_device(reader, value);
    if (keyword == 1) return read_software(reader, value);
    return copy_text(reader, value, "regime", table->regime, sizeof table->regime);
}

static int read_version(const struct reader *reader, struct span line) {
    static const char magic[] = "# tilebook table ";
    struct span text = trim(line);
    long version = 0;
    if (text.length < sizeof magic || memcmp(text.at, magic, sizeof magic - 1) ||
        parse_integer((struct span){text.at + sizeof magic - 1, text.length - sizeof magic + 1}, 1, &version))
        return fail_at(reader, "'%.*s' is not the first line of a tile table, which is '%s%d'", QUOTE(text), magic,
                       TILES_VERSION);
    if (version != TILES_VERSION)
        return fail_at(reader,
                       "the table has version %ld, this program reads version %d; make it anew with `tilebook tune`",
                       version, TILES_VERSION);
    return 0;
}

static int check_bytes(const struct reader *reader, struct span line) {
    for (size_t i = 0; i < line.length; i++) {
        unsigned char c = (unsigned char)line.at[i];
        if ((c < 32 && c != '\t') || c == 127)
            return fail_at(reader, "byte 0x%02x in column %zu; a tile table is plain text", c, i + 1);
    }
    return 0;
}

static int read_line(struct reader *reader, struct span line) {
    if (line.length && line.at[line.length - 1] == '\r') line.length--;
    if (check_bytes(reader, line)) return -1;
    if (reader->line == 1) return read_version(reader, line);
    struct span rest = trim(line), fields[MAX_FIELDS];
    if (!rest.length || *rest.at == '#') return 0;
    int count = 0;
    const char *at = rest.at, *end = rest.at + rest.length;
    while (at < end) {
        const char *start = at;
        while (at < end && !is_blank(*at)) at++;
        struct span field = {start, (size_t)(at - start)};
        for (int i = 0; i < 3 && !count; i++)
            if (span_is(field, keywords[i]))
                return read_keyword(reader, i, trim((struct span){at, (size_t)(end - at)}));
        if (count == MAX_FIELDS) return fail_at(reader, "more than %d fields", MAX_FIELDS);
        fields[count++] = field;
        while (at < end && is_blank(*at)) at++;
    }
    return append_row(reader, fields, count);
}

static int read_lines(struct reader *reader, const char *text, size_t bytes) {
    const char *end = text + bytes;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        if (!stop) stop = end;
        reader->line++;
        if (read_line(reader, (struct span){text, (size_t)(stop - text)})) return -1;
        text = stop < end ? stop + 1 : end;
    }
    if (!reader->line)
        return fail(reader->message, "%.400s: the file is empty; make it with `tilebook tune`", reader->name);
    for (int i = 0; i < 3; i++)
        if (!reader->first_line[i]) return fail_at(reader, "the table ends without a '%s' line", keywords[i]);
    return 0;
}

int tiles_parse(const char *text, size_t bytes, const char *name, struct tile_table *table,
                char message[TILES_MESSAGE]) {
    *table = (struct tile_table){0};
    struct reader reader = {.name = name, .table = table, .message = message};
    if (!read_lines(&reader, text, bytes)) return 0;
    tiles_free(table);
    return -1;
}

static char *read_stream(FILE *file, size_t *bytes) {
    size_t capacity = 0;
    char *text = NULL;
    *bytes = 0;
    do {
        if (*bytes == capacity) {
            capacity = capacity ? 2 * capacity : 65536;
            char *grown = capacity > MAX_FILE ? NULL : realloc(text, capacity);
            if (!grown) {
                free(text);
                errno = EFBIG;
                return NULL;
            }
            text = grown;
        }
        *bytes += fread(text + *bytes, 1, capacity - *bytes, file);
    } while (!feof(file) && !ferror(file));
    if (!ferror(file)) return text;
    free(text);
    return NULL;
}

int tiles_read(const char *path, struct tile_table *table, char message[TILES_MESSAGE]) {
    *table = (struct tile_table){0};
    FILE *file = fopen(path, "rb");
    size_t bytes = 0;
    char *text = file ? read_stream(file, &bytes) : NULL;
    int cause = errno;
    if (file) fclose(file);
    if (!text) return fail(message, "%.400s: cannot read the tile table: %s", path, strerror(cause));
    int status = tiles_parse(text, bytes, path, table, message);
    free(text);
    return status;
}

void tiles_free(struct tile_table *table) {
    free(table->rows);
    *table = (struct tile_table){0};
}

enum { CELL = 192 };

/* A decimal in the C locale; what no table holds comes out as text that the reader refuses. */
static void print_decimal(char cell[CELL], double value, int decimals) {
    long long scale = decimals == 2 ? 100 : 10;
    if (!(value >= 0 && value <= largest)) {
        snprintf(cell, CELL, "%f", value);
        return;
    }
    long long scaled = (long long)(value * (double)scale + 0.5);
    snprintf(cell, CELL, "%lld.%0*lld", scaled / scale, decimals, scaled % scale);
}

static void print_cells(const struct tile_row *row, char cells[COLUMNS][CELL]) {
    snprintf(cells[0], CELL, "%s", row->op);
    snprintf(cells[1], CELL, "%ld", row->k);
    snprintf(cells[2], CELL, "%ld", row->n);
    snprintf(cells[3], CELL, "%ld", row->group);
    if (row->m_low == row->m_high)
        snprintf(cells[4], CELL, "%ld", row->m_low);
    else
        snprintf(cells[4], CELL, "%ld-%ld", row->m_low, row->m_high);
    snprintf(cells[5], CELL, "%s", row->kernel);
    snprintf(cells[6], CELL, "%s", row->configuration);
    print_decimal(cells[7], row->us, 2);
    print_decimal(cells[8], row->gbs, 1);
    snprintf(cells[9], CELL, "%d", row->tie);
    print_decimal(cells[10], row->default_us, 2);
}

static void print_row(FILE *stream, char cells[COLUMNS][CELL], const int widths[COLUMNS]) {
    for (int c = 0; c < COLUMNS - 1; c++) fprintf(stream, "%-*s ", widths[c], cells[c]);
    fprintf(stream, "%s\n", cells[COLUMNS - 1]);
}

void tiles_print(const struct tile_table *table, FILE *stream) {
    char cells[COLUMNS][CELL];
    int widths[COLUMNS] = {0};
    fprintf(stream, "# tilebook table %d\n", TILES_VERSION);
    fprintf(stream, "device    %s, %s, %d %s\n", table->device, table->architecture, table->multiprocessors,
            strncmp(table->architecture, "sm_", 3) ? "cores" : "SMs");
    fprintf(stream, "software  %s, kernels %s\n", table->software, table->kernels);
    fprintf(stream, "regime    %s\n", table->regime);
    for (size_t i = 0; i <= table->count; i++) {
        if (i < table->count) print_cells(&table->rows[i], cells);
        for (int c = 0; c < COLUMNS; c++) {
            size_t width = i < table->count ? strlen(cells[c]) : strlen(column_names[c]) + (c ? 0 : 2);
            if (widths[c] < (int)width) widths[c] = (int)width;
        }
    }
    for (int c = 0; c < COLUMNS; c++) snprintf(cells[c], CELL, "%s%s", c ? "" : "# ", column_names[c]);
    print_row(stream, cells, widths);
    for (size_t i = 0; i < table->count; i++) {
        print_cells(&table->rows[i], cells);
        print_row(stream, cells, widths);
    }
}

/* The file's text in memory, checked by reading it back: what was written can be read. */
static char *checked_text(const char *path, struct tile_table *table, size_t *bytes, char *message) {
    char *text = NULL;
    FILE *stream = open_memstream(&text, bytes);
    if (stream) {
        tiles_print(table, stream);
        if (fclose(stream)) {
            free(text);
            text = NULL;
        }
    }
    if (!text) {
        fail(message, "%.400s: out of memory", path);
        return NULL;
    }
    struct tile_table copy;
    int status = tiles_parse(text, *bytes, path, &copy, message);
    if (!status && copy.count != table->count)
        status = fail(message, "%.400s: %zu of %zu rows can be read back", path, copy.count, table->count);
    tiles_free(&copy);
    if (!status) return text;
    free(text);
    return NULL;
}

static int write_all(const char *path, const char *text, size_t bytes) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) return -1;
    while (bytes) {
        ssize_t written = write(file, text, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) break;
        text += written;
        bytes -= (size_t)written;
    }
    int bad = bytes || fsync(file), cause = errno;
    if (close(file) && !bad) return -1;
    errno = cause;
    return bad ? -1 : 0;
}

/* A rename would replace a device or a directory's place by a file. */
static int check_target(const char *path, char *message) {
    struct stat status;
    if (!stat(path, &status) && !S_ISREG(status.st_mode))
        return fail(message, "%.400s: cannot write the tile table: not a regular file", path);
    return 0;
}

int tiles_write(const char *path, struct tile_table *table, char message[TILES_MESSAGE]) {
    if (table->count) qsort(table->rows, table->count, sizeof *table->rows, compare_rows);
    size_t bytes = 0, length = strlen(path) + 32;
    if (check_target(path, message)) return -1;
    char *text = checked_text(path, table, &bytes, message), *temporary = malloc(length);
    int status = -1;
    if (text && temporary) {
        snprintf(temporary, length, "%s.%ld.tmp", path, (long)getpid());
        status = write_all(temporary, text, bytes) || rename(temporary, path) ? -1 : 0;
        if (status) fail(message, "%.400s: cannot write the tile table: %s", path, strerror(errno));
        if (status) unlink(temporary);
    } else if (text) {
        fail(message, "%.400s: out of memory", path);
    }
    free(temporary);
    free(text);
    return status;
}

/* Ranges of one key have no gaps, so the last row that does not lie behind (key, m) is the one. */
const struct tile_row *tiles_find(const struct tile_table *table, const char *op, long k, long n, long group, long m) {
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_keys(&table->rows[middle], op, k, n, group);
        if (order < 0 || (order == 0 && table->rows[middle].m_low <= m))
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || compare_keys(&table->rows[low - 1], op, k, n, group)) return NULL;
    return &table->rows[low - 1];
}

static void append(char *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(char *message, const char *format, ...) {
    size_t used = strlen(message);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + used, TILES_MESSAGE - used, format, arguments);
    va_end(arguments);
}

int tiles_match(const struct tile_table *table, const char *device, const char *architecture, int multiprocessors,
                const char *kernels, char message[TILES_MESSAGE]) {
    fail(message, "the table is for other hardware or sources:");
    size_t lead = strlen(message);
    if (strcmp(table->device, device)) append(message, " device '%s', here '%.95s';", table->device, device);
    if (strcmp(table->architecture, architecture))
        append(message, " architecture %s, here %.15s;", table->architecture, architecture);
    if (table->multiprocessors != multiprocessors)
        append(message, " %d multiprocessors, here %d;", table->multiprocessors, multiprocessors);
    if (strcmp(table->kernels, kernels)) append(message, " kernels %s, here %.15s;", table->kernels, kernels);
    if (message[lead]) {
        append(message, " run `tilebook tune` for a table that fits");
        return -1;
    }
    message[0] = 0;
    return 0;
}
