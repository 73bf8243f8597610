/* Validates JSON by a schema: the keywords of draft 2020-12 that the schemas here use. Any other keyword is a failure,
 * so that none is passed over in silence. */
#ifndef TILEBOOK_TESTS_SCHEMA_H
#define TILEBOOK_TESTS_SCHEMA_H

#include <math.h>
#include <regex.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

struct schema {
    const json_t *root;
    char why[512]; /* the last thing that did not match */
};

static inline bool schema_valid(struct schema *schema, const json_t *rule, const json_t *value, const char *path);

/* Keeps the innermost reason; false. */
static inline bool schema_refuse(struct schema *schema, const char *path, const char *keyword, const json_t *expected) {
    char *text = json_dumps(expected, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(schema->why, sizeof schema->why, "%.200s: %s %.200s", path, keyword, text ? text : "?");
    free(text);
    return false;
}

static inline bool schema_is(const json_t *value, const char *type) {
    double number = json_number_value(value);
    return !strcmp(type, "object")    ? json_is_object(value)
           : !strcmp(type, "array")   ? json_is_array(value)
           : !strcmp(type, "string")  ? json_is_string(value)
           : !strcmp(type, "number")  ? json_is_number(value)
           : !strcmp(type, "integer") ? json_is_number(value) && floor(number) == number
                                      : false;
}

static inline bool schema_equal(const json_t *a, const json_t *b) {
    return json_equal(a, b) || (json_is_number(a) && json_is_number(b) && json_number_value(a) == json_number_value(b));
}

/* Patterns are of the part that ECMA 262 and POSIX extended expressions share. */
static inline bool schema_matches(const char *text, const char *pattern) {
    regex_t regex;
    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB)) return false;
    bool found = !regexec(&regex, text, 0, NULL, 0);
    regfree(&regex);
    return found;
}

static inline bool schema_properties(struct schema *schema, const json_t *rule, const json_t *value, const char *path) {
    const json_t *known = json_object_get(rule, "properties"), *others = json_object_get(rule, "additionalProperties");
    const char *key;
    json_t *member;
    char inner[256];
    json_object_foreach((json_t *)value, key, member) {
        const json_t *inner_rule = json_object_get(known, key);
        snprintf(inner, sizeof inner, "%s/%s", path, key);
        if (!inner_rule && json_is_false(others)) return schema_refuse(schema, inner, "additionalProperties", others);
        if (inner_rule && !schema_valid(schema, inner_rule, member, inner)) return false;
    }
    return true;
}

static inline bool schema_required(const json_t *names, const json_t *value) {
    for (size_t i = 0; i < json_array_size(names); i++)
        if (!json_object_get(value, json_string_value(json_array_get(names, i)))) return false;
    return true;
}

static inline bool schema_one_of(struct schema *schema, const json_t *rules, const json_t *value, const char *path) {
    int valid = 0;
    char why[sizeof schema->why] = "";
    for (size_t i = 0; i < json_array_size(rules); i++) {
        valid += schema_valid(schema, json_array_get(rules, i), value, path);
        if (!i) memcpy(why, schema->why, sizeof why);
    }
    memcpy(schema->why, why, sizeof why);
    return valid == 1;
}

static inline bool schema_items(struct schema *schema, const json_t *rule, const json_t *value, const char *path) {
    char inner[256];
    for (size_t i = 0; i < json_array_size(value); i++) {
        snprintf(inner, sizeof inner, "%s/%zu", path, i);
        if (!schema_valid(schema, rule, json_array_get(value, i), inner)) return false;
    }
    return true;
}

static inline const json_t *schema_definition(const struct schema *schema, const json_t *reference) {
    static const char prefix[] = "#/$defs/";
    const char *text = json_string_value(reference);
    if (strncmp(text, prefix, strlen(prefix))) return NULL;
    return json_object_get(json_object_get(schema->root, "$defs"), text + strlen(prefix));
}

static inline bool schema_among(const json_t *list, const json_t *value) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (schema_equal(json_array_get(list, i), value)) return true;
    return false;
}

/* One keyword of a rule. */
static inline bool schema_keyword(struct schema *schema, const json_t *rule, const char *keyword,
                                  const json_t *expected, const json_t *value, const char *path) {
    static const char *const words[] = {"$schema", "$defs", "title", "description", "additionalProperties"};
    double number = json_number_value(value), bound = json_number_value(expected);
    bool holds = true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(keyword, words[i])) return true;
    if (!strcmp(keyword, "type"))
        holds = schema_is(value, json_string_value(expected));
    else if (!strcmp(keyword, "const"))
        holds = schema_equal(expected, value);
    else if (!strcmp(keyword, "enum"))
        holds = schema_among(expected, value);
    else if (!strcmp(keyword, "pattern"))
        holds = !json_is_string(value) || schema_matches(json_string_value(value), json_string_value(expected));
    else if (!strcmp(keyword, "minimum"))
        holds = !json_is_number(value) || number >= bound;
    else if (!strcmp(keyword, "maximum"))
        holds = !json_is_number(value) || number <= bound;
    else if (!strcmp(keyword, "exclusiveMinimum"))
        holds = !json_is_number(value) || number > bound;
    else if (!strcmp(keyword, "required"))
        holds = !json_is_object(value) || schema_required(expected, value);
    else if (!strcmp(keyword, "properties"))
        return !json_is_object(value) || schema_properties(schema, rule, value, path);
    else if (!strcmp(keyword, "items"))
        return !json_is_array(value) || schema_items(schema, expected, value, path);
    else if (!strcmp(keyword, "oneOf"))
        return schema_one_of(schema, expected, value, path);
    else if (!strcmp(keyword, "$ref"))
        return schema_valid(schema, schema_definition(schema, expected), value, path);
    else
        return schema_refuse(schema, path, "unknown keyword", json_object_get(rule, keyword));
    return holds || schema_refuse(schema, path, keyword, expected);
}

/* A rule is an object of keywords, or false, which nothing matches. */
static inline bool schema_valid(struct schema *schema, const json_t *rule, const json_t *value, const char *path) {
    const char *keyword;
    json_t *expected;
    if (!json_is_object(rule)) return schema_refuse(schema, path, "may not be there:", value);
    json_object_foreach((json_t *)rule, keyword, expected) {
        if (!schema_keyword(schema, rule, keyword, expected, value, path)) return false;
    }
    return true;
}

#endif
