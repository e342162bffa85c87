/** Checksums and compression of the engine, in the forms in which storage takes them. */
import { crc32, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import type { Crc32 } from '../base/crc32.ts'
import type { BlockCodec } from '../storage/sstable.ts'

export const nativeCrc32: Crc32 = (bytes, start, end) => crc32(bytes.subarray(start, end))

export const zstd: BlockCodec = {
  compress: (bytes) => zstdCompressSync(bytes),
  decompress: (bytes, rawBytes) => {
    const raw = zstdDecompressSync(bytes, { maxOutputLength: rawBytes })
    // In memory of its own: small results may be views of a pool.
    return new Uint8Array(raw)
  },
}
