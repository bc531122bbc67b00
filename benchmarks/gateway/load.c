/* Calls one address over CONNECTIONS connections, each as fast as it is answered, for SECONDS seconds.
 *
 *   load PORT CONNECTIONS SECONDS FILE     FILE holds one request, head and body, as it goes over the wire
 *
 * Prints one JSON object: calls that were answered with 200, others, bytes, events ("data:" in a body), seconds,
 * percentiles of the complete call and of the first byte of a body in microseconds, and its own CPU time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 8192
#define SAMPLES (1 << 22)

typedef struct {
    long begun, first;
    size_t sent, want, got, head_got;
    int fd, is_chunked, status, matched, needs;
    char head[4096], last[8];
} Connection;

static Connection all[CONNECTIONS];
static char *request;
static size_t request_size;
static int poller, port;
static unsigned *whole_us, *first_us;
static long samples, firsts, served, others, bytes, events, failed;

static long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static void watch(Connection *c, int change) {
    struct epoll_event interest = {.events = EPOLLIN | (c->sent < request_size ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, change, c->fd, &interest);
}

static void push(Connection *c) {
    ssize_t sent = write(c->fd, request + c->sent, request_size - c->sent);
    if (sent > 0) c->sent += sent;
}

static void begin(Connection *c) {
    c->begun = now_us();
    c->first = c->sent = c->want = c->got = c->head_got = c->status = c->is_chunked = c->matched = 0;
    memset(c->last, 0, sizeof c->last);
    push(c);
    if ((c->sent < request_size) != c->needs) {
        c->needs = c->sent < request_size;
        watch(c, EPOLL_CTL_MOD);
    }
}

static void dial(Connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&address, sizeof address)) { perror("load"); exit(3); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->needs = 0;
    c->sent = request_size;
    watch(c, EPOLL_CTL_ADD);
}

static void count_events(Connection *c, const char *data, size_t size) {
    const char *word = "data:";
    for (size_t i = 0; i < size; i++) {
        c->matched = data[i] == word[c->matched] ? c->matched + 1 : data[i] == 'd';
        if (c->matched == 5) events++, c->matched = 0;
    }
}

/* Returns 1 once the answer is complete. */
static int take(Connection *c, const char *data, size_t size) {
    bytes += size;
    if (!c->status) {
        size_t room = sizeof c->head - 1 - c->head_got, part = size < room ? size : room;
        memcpy(c->head + c->head_got, data, part);
        c->head_got += part;
        c->head[c->head_got] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) return 0;
        size_t head_size = end + 4 - c->head, before = c->head_got - part;
        *end = 0;
        c->status = atoi(c->head + 9);
        c->is_chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
        char *length = strcasestr(c->head, "\r\ncontent-length:");
        c->want = length ? strtoul(length + 17, NULL, 10) : 0;
        data += head_size - before, size -= head_size - before;
    }
    if (size && !c->first) {
        c->first = now_us();
        if (firsts < SAMPLES) first_us[firsts++] = c->first - c->begun;
    }
    c->got += size;
    if (!c->is_chunked) return c->got >= c->want;
    count_events(c, data, size);
    for (size_t from = size > 5 ? size - 5 : 0; from < size; from++) {
        memmove(c->last, c->last + 1, 4);
        c->last[4] = data[from];
    }
    return c->got >= 5 && !memcmp(c->last, "0\r\n\r\n", 5);
}

static int less(const void *a, const void *b) { return (*(unsigned *)a > *(unsigned *)b) - (*(unsigned *)a < *(unsigned *)b); }

static void show(const char *name, unsigned *us, long count) {
    qsort(us, count, sizeof *us, less);
    printf(",\"%s_p50_us\":%u,\"%s_p99_us\":%u", name, count ? us[count / 2] : 0, name, count ? us[count * 99 / 100] : 0);
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "load PORT CONNECTIONS SECONDS FILE\n"), 2;
    port = atoi(argv[1]);
    int connections = atoi(argv[2]);
    double seconds = atof(argv[3]);
    FILE *file = fopen(argv[4], "rb");
    if (!file || connections < 1 || connections > CONNECTIONS) return perror("load"), 2;
    fseek(file, 0, SEEK_END);
    request_size = ftell(file);
    rewind(file);
    request = malloc(request_size);
    if (fread(request, 1, request_size, file) != request_size) return 2;
    whole_us = malloc(SAMPLES * sizeof *whole_us), first_us = malloc(SAMPLES * sizeof *first_us);
    poller = epoll_create1(0);
    for (int i = 0; i < connections; i++) dial(&all[i]);
    long begun = now_us(), end = begun + seconds * 1e6, stop = end + 30000000L;
    for (int i = 0; i < connections; i++) begin(&all[i]);
    int running = connections;
    static char data[1 << 18];
    struct epoll_event ready_events[512];
    while (running && now_us() < stop) {
        int ready = epoll_wait(poller, ready_events, 512, 100);
        for (int i = 0; i < ready; i++) {
            Connection *c = ready_events[i].data.ptr;
            if (c->sent < request_size) {
                push(c);
                if (c->sent == request_size) c->needs = 0, watch(c, EPOLL_CTL_MOD);
            }
            ssize_t got = read(c->fd, data, sizeof data);
            if (got < 0 && errno == EAGAIN) continue;
            int is_over = got > 0 && take(c, data, got);
            if (got > 0 && !is_over) continue;
            long now = now_us();
            if (got <= 0) {
                failed++;
                close(c->fd);
                if (now < end) dial(c), begin(c);
                else running--;
                continue;
            }
            c->status == 200 ? served++ : others++;
            if (samples < SAMPLES) whole_us[samples++] = now - c->begun;
            if (now < end) begin(c);
            else close(c->fd), running--;
        }
    }
    double elapsed = (now_us() - begun) / 1e6;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"served\":%ld,\"others\":%ld,\"failed\":%ld,\"bytes\":%ld,\"events\":%ld,\"seconds\":%.3f", served, others, failed, bytes, events, elapsed);
    show("call", whole_us, samples);
    show("first", first_us, firsts);
    printf(",\"cpu_s\":%.3f}\n", used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    return 0;
}
