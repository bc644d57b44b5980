/* Loads the library as a plugin would, again and again, and closes it while threads of its run. Not linked with it. */
#include <bruit.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ISO C has no conversion from void * to a function. */
#define LOAD(name) \
    do { \
        *(void **)&name = dlsym(library, "bruit_" #name); \
        if (name == NULL) { \
            fprintf(stderr, "%s\n", dlerror()); \
            exit(1); \
        } \
    } while (0)
#define OK(call) \
    do { \
        int rc_ = (call); \
        if (rc_ != BRUIT_OK) { \
            fprintf(stderr, "round %d: %s is %d\n", round, #call, rc_); \
            exit(1); \
        } \
    } while (0)

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "libbruit.so.0";
    alarm(300);
    for (int round = 0; round < 30; round++) {
        int (*config_new)(bruit_config **);
        int (*config_set)(bruit_config *, const char *, const char *);
        int (*config_free)(bruit_config *);
        int (*node_new)(const bruit_config *, bruit_node **);
        int (*node_start)(bruit_node *);
        int (*node_free)(bruit_node *);
        int (*node_release)(bruit_node *);
        bruit_config *config = NULL;
        bruit_node *node = NULL;
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        LOAD(config_new);
        LOAD(config_set);
        LOAD(config_free);
        LOAD(node_new);
        LOAD(node_start);
        LOAD(node_free);
        LOAD(node_release);
        OK(config_new(&config));
        OK(config_set(config, "bind", "127.0.0.1:0"));
        OK(node_new(config, &node));
        OK(config_free(config));
        OK(node_start(node));
        if (round % 3 == 0)
            OK(node_free(node));
        else if (round % 3 == 1)
            OK(node_release(node));
        /* else it runs on */
        if (dlclose(library) != 0) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
    }
    return 0;
}
