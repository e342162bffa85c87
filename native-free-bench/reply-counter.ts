/**
 * Finds the ends of HTTP/1.1 replies in a stream of bytes, as cheaply as a load generator needs it.
 *
 * Scanning: the end of the header is searched for and its Content-Length read. Fixed: the first reply is scanned, and all
 * later ones are taken to have its length, so that counting costs a subtraction; the first byte and the status of each are
 * still checked, so a reply of another length is found out at once. Chunked replies are not understood and throw.
 */

const headerEnd = Buffer.from('\r\n\r\n')
const statusAt = 9
const letterH = 0x48
const digit2 = 0x32
const headerBytesMax = 64 * 1024

/** Counts the replies of one connection. */
export class ReplyCounter {
  /** Replies whose status was not 2xx. */
  failures = 0
  readonly #fixed: boolean
  #replyBytes = 0
  /** Bytes of the reply under way that are past (fixed), or of its body still to come (scanning). */
  #position = 0
  #bodyLeft = 0
  #header: Buffer | undefined

  /** `fixed`: every reply is as long as the first. */
  constructor(fixed: boolean) {
    this.#fixed = fixed
  }

  /** Takes the bytes of one read and returns how many replies ended in them. Keeps no reference to `chunk`. */
  push(chunk: Buffer): number {
    return this.#replyBytes > 0 ? this.#count(chunk, 0) : this.#scan(chunk)
  }

  #count(chunk: Buffer, from: number): number {
    let replies = 0
    let at = from
    while (at < chunk.length) {
      if (this.#position === 0 && chunk[at] !== letterH) throw new Error('A reply has another length than the first')
      const status = at + statusAt - this.#position
      const taken = Math.min(this.#replyBytes - this.#position, chunk.length - at)
      if (status >= at && status < at + taken && chunk[status] !== digit2) this.failures++
      this.#position += taken
      at += taken
      if (this.#position === this.#replyBytes) {
        replies++
        this.#position = 0
      }
    }
    return replies
  }

  #scan(chunk: Buffer): number {
    let replies = 0
    let at = 0
    let bytes = chunk
    if (this.#header !== undefined) {
      bytes = Buffer.concat([this.#header, chunk])
      this.#header = undefined
    }
    while (at < bytes.length) {
      if (this.#bodyLeft === 0) {
        const end = bytes.indexOf(headerEnd, at)
        if (end < 0) {
          if (bytes.length - at > headerBytesMax) throw new Error('A reply has no end of its header')
          this.#header = Buffer.from(bytes.subarray(at))
          return replies
        }
        this.#bodyLeft = this.#bodyBytes(bytes.toString('latin1', at, end))
        if (this.#fixed) {
          this.#replyBytes = end + headerEnd.length - at + this.#bodyLeft
          this.#bodyLeft = 0
          // The status of this reply was counted with its header.
          this.#position = end + headerEnd.length - at
          if (this.#position === this.#replyBytes) {
            this.#position = 0
            replies++
          }
          return replies + this.#count(bytes, end + headerEnd.length)
        }
        at = end + headerEnd.length
      } else {
        const taken = Math.min(this.#bodyLeft, bytes.length - at)
        this.#bodyLeft -= taken
        at += taken
      }
      if (this.#bodyLeft === 0) replies++
    }
    return replies
  }

  #bodyBytes(header: string): number {
    const status = /^HTTP\/1\.1 (\d{3})/.exec(header)?.[1]
    if (status === undefined) throw new Error(`This is not an HTTP/1.1 reply: ${header.slice(0, 40)}`)
    if (!status.startsWith('2')) this.failures++
    if (status === '204' || status === '304') return 0
    const length = /\r\ncontent-length: *(\d+)/i.exec(header)?.[1]
    if (length === undefined) throw new Error('A reply has no Content-Length')
    return Number(length)
  }
}
