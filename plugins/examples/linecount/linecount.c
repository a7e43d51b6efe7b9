/* Counts the lines of $INPUT/lines.txt; the method's name is argv[1], the result is JSON on stdout. */
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    char path[4096], buffer[65536];
    const char *input = getenv("INPUT");
    long lines = 0;
    size_t got;
    snprintf(path, sizeof path, "%s/lines.txt", input ? input : ".");
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    while ((got = fread(buffer, 1, sizeof buffer, file)) > 0)
        for (size_t i = 0; i < got; i++)
            lines += buffer[i] == '\n';
    printf("{\"lines\": %ld}\n", lines);
    return 0;
}
