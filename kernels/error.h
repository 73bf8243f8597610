/* One way to fail: a function returns -1 (or NULL) after writing a message that says what was
 * found, what is accepted, where, and what to run next. Only cmd_*.c prints it and exits. */
#ifndef TILEBOOK_ERROR_H
#define TILEBOOK_ERROR_H

struct error {
    char text[768];
};

/* Writes the message (longer ones are cut) and returns -1, so that callers `return error_set(...)`.
 * `error` may be NULL when the caller only wants the verdict. */
int error_set(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "text: " in front of the message that is there; returns -1. */
int error_prefix(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
