#include "model/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/float16.h"
#include "base/gguf.h"
#include "base/mapped_file.h"
#include "model/block_formats.h"
#include "model/json_fields.h"

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE  "model.safetensors.index.json"

struct shard {
    char *path; /* for opening and for messages */
    int fd;     /* -1 = not open */
    struct safetensors header;
};

struct checkpoint {
    struct shard *shards; /* [n_shards] */
    uint32_t n_shards;
    struct checkpoint_tensor *tensors; /* [n_tensors], ascending by name */
    size_t n_tensors;
};

static err_t read_at(int fd, const char *path, uint64_t offset, size_t n, void *out)
{
    uint8_t *bytes = out;
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, bytes + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_new(ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (got == 0)
            return err_new(ERR_DATA_LOSS, "%s: truncated: it ends before byte %llu", path,
                           (unsigned long long)(offset + n));
        done += (size_t)got;
    }
    return err_ok();
}

static err_t shard_read_header(struct shard *shard)
{
    struct stat status;
    shard->fd = open(shard->path, O_RDONLY | O_CLOEXEC);
    if (shard->fd < 0)
        return err_new(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: cannot open: %s", shard->path,
                       strerror(errno));
    if (fstat(shard->fd, &status) != 0)
        return err_new(ERR_IO, "%s: cannot examine: %s", shard->path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return err_new(ERR_INVALID_ARGUMENT, "%s: not a regular file", shard->path);
    uint64_t file_bytes = (uint64_t)status.st_size, header_bytes;
    if (file_bytes < 8)
        return err_new(ERR_DATA_LOSS, "%s: truncated: %llu bytes are no safetensors file", shard->path,
                       (unsigned long long)file_bytes);
    uint8_t prefix[8];
    TRY(read_at(shard->fd, shard->path, 0, sizeof prefix, prefix));
    TRY(safetensors_header_bytes(shard->path, prefix, file_bytes, &header_bytes));
    char *header = mem_alloc((size_t)header_bytes + 1);
    if (!header)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory for its header of %llu bytes", shard->path,
                       (unsigned long long)header_bytes);
    err_t e = read_at(shard->fd, shard->path, 8, (size_t)header_bytes, header);
    if (e.code == ERR_OK)
        e = safetensors_parse(shard->path, header, (size_t)header_bytes, file_bytes, &shard->header);
    mem_free(header);
    return e;
}

static err_t add_shard(struct checkpoint *checkpoint, const char *directory, const char *name,
                       uint32_t *index)
{
    char path[PATH_MAX];
    TRY(path_join(directory, name, path, sizeof path));
    for (uint32_t i = 0; i < checkpoint->n_shards; i++) {
        if (strcmp(checkpoint->shards[i].path, path) == 0) {
            *index = i;
            return err_ok();
        }
    }
    if (checkpoint->n_shards == CHECKPOINT_SHARDS_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s/%s: more than %d shards", directory, INDEX_FILE,
                       CHECKPOINT_SHARDS_MAX);
    struct shard *shards =
        mem_realloc(checkpoint->shards, (checkpoint->n_shards + 1) * sizeof *checkpoint->shards);
    if (!shards)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", path);
    checkpoint->shards = shards;
    struct shard *shard = &shards[checkpoint->n_shards];
    *shard = (struct shard){.path = mem_strdup(path), .fd = -1};
    if (!shard->path)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", path);
    *index = checkpoint->n_shards++;
    return shard_read_header(shard);
}

static int compare_name(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = a, *y = b;
    return strcmp(x->info->name, y->info->name);
}

static err_t merge_tensors(struct checkpoint *checkpoint)
{
    size_t total = 0;
    for (uint32_t i = 0; i < checkpoint->n_shards; i++)
        total += checkpoint->shards[i].header.n_tensors;
    if (total > SAFETENSORS_TENSORS_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: %zu tensors in all shards, at most %d are allowed",
                       checkpoint->shards[0].path, total, SAFETENSORS_TENSORS_MAX);
    checkpoint->tensors = mem_alloc_array(total ? total : 1, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu tensors", total);
    for (uint32_t i = 0; i < checkpoint->n_shards; i++) {
        const struct safetensors *header = &checkpoint->shards[i].header;
        for (size_t t = 0; t < header->n_tensors; t++)
            checkpoint->tensors[checkpoint->n_tensors++] =
                (struct checkpoint_tensor){.info = &header->tensors[t], .shard = i};
    }
    qsort(checkpoint->tensors, checkpoint->n_tensors, sizeof *checkpoint->tensors, compare_name);
    for (size_t i = 1; i < checkpoint->n_tensors; i++) {
        const struct checkpoint_tensor *a = &checkpoint->tensors[i - 1], *b = &checkpoint->tensors[i];
        if (strcmp(a->info->name, b->info->name) == 0)
            return err_new(ERR_DATA_LOSS, "tensor \"%s\" is both in %s and in %s", a->info->name,
                           checkpoint_file(checkpoint, a), checkpoint_file(checkpoint, b));
    }
    return err_ok();
}

static struct checkpoint_tensor *find_tensor(const struct checkpoint *checkpoint, const char *name)
{
    size_t low = 0, high = checkpoint->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(checkpoint->tensors[middle].info->name, name);
        if (order == 0)
            return &checkpoint->tensors[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* Opens the shards that the index names, then holds the index against what they contain. */
static err_t open_indexed(struct checkpoint *checkpoint, const char *directory, const char *path,
                          const json_t *root)
{
    struct json_fields fields = {.file = path, .prefix = "", .object = root}, map;
    TRY(json_opt_object(&fields, "weight_map", "weight_map.", &map));
    if (!map.object || json_object_size(map.object) == 0)
        return err_new(ERR_DATA_LOSS, "%s: \"weight_map\" is missing or empty", path);
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)map.object, name, value)
    {
        if (!json_is_string(value))
            return err_new(ERR_DATA_LOSS, "%s: tensor \"%.120s\": its shard must be a file name", path, name);
        uint32_t shard;
        err_t e = add_shard(checkpoint, directory, json_string_value(value), &shard);
        if (e.code != ERR_OK)
            return err_prefix(e, "%s, tensor \"%.120s\"", INDEX_FILE, name);
    }
    TRY(merge_tensors(checkpoint));
    json_object_foreach((json_t *)map.object, name, value)
    {
        const struct checkpoint_tensor *tensor = find_tensor(checkpoint, name);
        if (!tensor ||
            strcmp(strrchr(checkpoint_file(checkpoint, tensor), '/') + 1, json_string_value(value)) != 0)
            return err_new(ERR_DATA_LOSS,
                           "%s: tensor \"%.120s\" is not in the shard %.120s that the index names", path,
                           name, json_string_value(value));
    }
    return err_ok();
}

static err_t open_files(struct checkpoint *checkpoint, const char *directory)
{
    char path[PATH_MAX];
    TRY(path_join(directory, SINGLE_FILE, path, sizeof path));
    if (access(path, F_OK) == 0) {
        uint32_t shard;
        TRY(add_shard(checkpoint, directory, SINGLE_FILE, &shard));
        return merge_tensors(checkpoint);
    }
    TRY(path_join(directory, INDEX_FILE, path, sizeof path));
    if (access(path, F_OK) != 0)
        return err_new(ERR_NOT_FOUND, "%s: holds neither %s nor %s", directory, SINGLE_FILE, INDEX_FILE);
    json_t *root;
    TRY(json_object_load(path, &root));
    err_t e = open_indexed(checkpoint, directory, path, root);
    json_decref(root);
    return e;
}

/* ---- GGUF ---- */

static enum tensor_dtype dtype_of_gguf(uint32_t type)
{
    const char *name = gguf_tensor_format(type)->name;
    for (int dtype = TENSOR_F32; dtype <= TENSOR_BF16; dtype++) {
        if (strcmp(tensor_dtype_name((enum tensor_dtype)dtype), name) == 0)
            return (enum tensor_dtype)dtype;
    }
    return (enum tensor_dtype)(TENSOR_GGUF + type);
}

/* The directory of the file as the header of a shard. */
static err_t list_gguf_tensors(const struct gguf *gguf, struct safetensors *out)
{
    out->tensors = mem_alloc_array(gguf->n_tensors + 1, sizeof *out->tensors);
    if (!out->tensors)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory for %zu tensors", gguf->path,
                       gguf->n_tensors);
    out->data_offset = gguf->data_offset;
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const struct gguf_tensor *from = &gguf->tensors[i];
        struct tensor_info *to = &out->tensors[out->n_tensors++];
        *to = (struct tensor_info){.name = mem_strndup(from->name.data, from->name.size_bytes),
                                   .dtype = dtype_of_gguf(from->type),
                                   .n_dims = from->n_dims,
                                   .begin = from->begin,
                                   .end = from->end};
        if (!to->name)
            return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", gguf->path);
        for (uint32_t d = 0; d < to->n_dims; d++)
            to->shape[d] = from->dims[to->n_dims - 1 - d];
    }
    return err_ok();
}

static err_t open_gguf(struct checkpoint *checkpoint, const char *path)
{
    checkpoint->shards = mem_alloc(sizeof *checkpoint->shards);
    if (!checkpoint->shards)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", path);
    struct shard *shard = &checkpoint->shards[0];
    *shard = (struct shard){.path = mem_strdup(path), .fd = -1};
    checkpoint->n_shards = 1;
    struct gguf gguf;
    TRY(gguf_open(path, &gguf));
    err_t e = gguf.is_head
                  ? err_new(ERR_INVALID_ARGUMENT, "%s: the head of a GGUF file, without weights", path)
                  : list_gguf_tensors(&gguf, &shard->header);
    gguf_close(&gguf);
    TRY(e);
    shard->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!shard->path || shard->fd < 0)
        return err_new(ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    return merge_tensors(checkpoint);
}

err_t checkpoint_open(const char *path, struct checkpoint **out)
{
    *out = NULL;
    struct checkpoint *checkpoint = mem_alloc(sizeof *checkpoint);
    if (!checkpoint)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", path);
    err_t e = gguf_is_path(path) ? open_gguf(checkpoint, path) : open_files(checkpoint, path);
    if (e.code != ERR_OK) {
        checkpoint_close(checkpoint);
        return e;
    }
    *out = checkpoint;
    return e;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    for (uint32_t i = 0; i < checkpoint->n_shards; i++) {
        struct shard *shard = &checkpoint->shards[i];
        safetensors_free(&shard->header);
        if (shard->fd >= 0)
            close(shard->fd);
        mem_free(shard->path);
    }
    mem_free(checkpoint->shards);
    mem_free(checkpoint->tensors);
    mem_free(checkpoint);
}

const struct checkpoint_tensor *checkpoint_find(struct checkpoint *checkpoint, const char *name)
{
    struct checkpoint_tensor *tensor = find_tensor(checkpoint, name);
    if (tensor)
        tensor->used = true;
    return tensor;
}

size_t checkpoint_count(const struct checkpoint *checkpoint)
{
    return checkpoint->n_tensors;
}

const struct checkpoint_tensor *checkpoint_at(const struct checkpoint *checkpoint, size_t index)
{
    ASSERT(index < checkpoint->n_tensors);
    return &checkpoint->tensors[index];
}

const char *checkpoint_file(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor)
{
    return checkpoint->shards[tensor->shard].path;
}

err_t checkpoint_read_bytes(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                            uint64_t first, size_t n, void *out)
{
    const struct shard *shard = &checkpoint->shards[tensor->shard];
    ASSERT(first <= tensor->info->end - tensor->info->begin &&
           n <= tensor->info->end - tensor->info->begin - first);
    err_t e =
        read_at(shard->fd, shard->path, shard->header.data_offset + tensor->info->begin + first, n, out);
    return e.code == ERR_OK ? e : err_prefix(e, "tensor \"%.120s\"", tensor->info->name);
}

static void widen(enum tensor_dtype dtype, const uint16_t *in, size_t n, float *out)
{
    if (dtype == TENSOR_BF16) {
        for (size_t i = 0; i < n; i++)
            out[i] = bf16_to_f32(in[i]);
    } else {
        for (size_t i = 0; i < n; i++)
            out[i] = f16_to_f32(in[i]);
    }
}

static block_dequantize_fn *dequantizer(const struct checkpoint_tensor *tensor)
{
    enum tensor_dtype dtype = tensor->info->dtype;
    return dtype >= TENSOR_GGUF ? block_dequantize((uint32_t)(dtype - TENSOR_GGUF)) : NULL;
}

bool checkpoint_can_read(const struct checkpoint_tensor *tensor)
{
    enum tensor_dtype dtype = tensor->info->dtype;
    return dtype == TENSOR_F32 || dtype == TENSOR_F16 || dtype == TENSOR_BF16 || dequantizer(tensor);
}

/* A range may begin and end within a block. */
static err_t read_blocks(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                         uint64_t first, size_t n, float *out)
{
    const struct gguf_tensor_format *format =
        gguf_tensor_format((uint32_t)(tensor->info->dtype - TENSOR_GGUF));
    block_dequantize_fn *dequantize = dequantizer(tensor);
    uint8_t chunk[8192];
    float values[BLOCK_VALUES_MAX];
    ASSERT(dequantize && format->block_values <= BLOCK_VALUES_MAX);
    uint64_t block = first / format->block_values;
    size_t skip = (size_t)(first % format->block_values);
    const size_t chunk_blocks = sizeof chunk / format->block_bytes;
    for (size_t done = 0; done < n;) {
        size_t blocks = div_up(skip + n - done, format->block_values);
        blocks = blocks < chunk_blocks ? blocks : chunk_blocks;
        TRY(checkpoint_read_bytes(checkpoint, tensor, block * format->block_bytes,
                                  blocks * format->block_bytes, chunk));
        for (size_t b = 0; b < blocks; b++) {
            dequantize(chunk + b * format->block_bytes, values);
            size_t now = format->block_values - skip;
            now = now < n - done ? now : n - done;
            memcpy(out + done, values + skip, now * sizeof *out);
            done += now;
            skip = 0;
        }
        block += blocks;
    }
    return err_ok();
}

err_t checkpoint_read_f32(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                          uint64_t first, size_t n, float *out)
{
    enum tensor_dtype dtype = tensor->info->dtype;
    if (dtype == TENSOR_F32)
        return checkpoint_read_bytes(checkpoint, tensor, first * sizeof(float), n * sizeof(float), out);
    if (dtype >= TENSOR_GGUF)
        return read_blocks(checkpoint, tensor, first, n, out);
    ASSERT(dtype == TENSOR_BF16 || dtype == TENSOR_F16);
    uint16_t chunk[4096];
    const size_t chunk_values = sizeof chunk / sizeof chunk[0];
    for (size_t done = 0; done < n;) {
        size_t now = n - done < chunk_values ? n - done : chunk_values;
        TRY(checkpoint_read_bytes(checkpoint, tensor, (first + done) * sizeof chunk[0], now * sizeof chunk[0],
                                  chunk));
        widen(dtype, chunk, now, out + done);
        done += now;
    }
    return err_ok();
}

void checkpoint_prefetch(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor)
{
    const struct shard *shard = &checkpoint->shards[tensor->shard];
    const struct tensor_info *info = tensor->info;
    (void)posix_fadvise(shard->fd, (off_t)(shard->header.data_offset + info->begin),
                        (off_t)(info->end - info->begin), POSIX_FADV_WILLNEED);
}
