/**
 * Cuts a stream of bytes into the records of an import: the lines of NDJSON, or the elements of one JSON array, told apart
 * by the first byte. It only finds where records begin and end; what stands in them is import-record.ts.
 *
 * Memory is bounded: what is kept between chunks is at most one record of `recordBytesMax`; a longer one is skipped to its
 * end and reported, and the rest is still read. In NDJSON every fault ends with its line. In an array a fault between
 * elements ends the import: what follows could be anything.
 */

/** Longest record. A value of the greatest size fits in base64, and as text unless most of it is escapes. */
export const RECORD_BYTES_MAX = 32 * 1024 * 1024

/** A record, or why there is none. `ordinal` counts from 1: lines that are not empty, or elements. */
export type Piece = {
  readonly ordinal: number
  /** Where it stands, for people: `line 7` or `element 7`. */
  readonly place: string
  /** Without white space around it; owned by the receiver. Undefined where `problem` stands. */
  readonly bytes: Uint8Array | undefined
  readonly problem: string | undefined
}

type Mode = 'start' | 'line' | 'beforeElement' | 'element' | 'afterElement' | 'finished' | 'broken'

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const NEWLINE = 0x0a
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf]

const isSpace = (byte: number): boolean => byte === 0x20 || byte === NEWLINE || byte === 0x0d || byte === 0x09

function trim(bytes: Uint8Array): Uint8Array {
  let start = 0
  let end = bytes.length
  while (start < end && isSpace(bytes[start]!)) start++
  while (end > start && isSpace(bytes[end - 1]!)) end--
  return bytes.subarray(start, end)
}

/** Feed it chunks with `push`, then call `end`; each call gives the pieces that became complete. O(bytes). */
export class ImportSplitter {
  readonly #recordBytesMax: number
  #mode: Mode = 'start'
  /** Bytes of the unfinished record; none are kept once there are too many. */
  #parts: Uint8Array[] = []
  #bytes = 0
  #ordinal = 0
  #line = 1
  #markBytes = 0
  /** Whether a comma came before the element that is expected. */
  #isElementOwed = false
  #elementKind: 'bracketed' | 'quoted' | 'bare' = 'bare'
  #depth = 0
  #isInString = false
  #isEscaped = false
  #pieces: Piece[] = []

  constructor(recordBytesMax: number = RECORD_BYTES_MAX) {
    this.#recordBytesMax = recordBytesMax
  }

  /** Whether nothing after this point can be read. */
  get isBroken(): boolean {
    return this.#mode === 'broken'
  }

  /** Bytes kept of the record that is not complete yet. */
  get bytesKept(): number {
    return this.#parts.reduce((bytes, part) => bytes + part.length, 0)
  }

  /** Pieces that end within `chunk`, which belongs to the splitter from now on. */
  push(chunk: Uint8Array): Piece[] {
    this.#pieces = []
    for (let at = 0; at < chunk.length && this.#mode !== 'broken'; ) {
      if (this.#mode === 'line') at = this.#readLine(chunk, at)
      else if (this.#mode === 'element') at = this.#readElement(chunk, at)
      else if (this.#readBetween(chunk[at]!)) at++
    }
    return this.#pieces
  }

  /** The pieces that end with the input: a last line without its newline, or the report of an array cut short. */
  end(): Piece[] {
    this.#pieces = []
    if (this.#mode === 'line') this.#finishRecord()
    else if (this.#mode === 'element' || this.#mode === 'beforeElement' || this.#mode === 'afterElement') {
      this.#break('the JSON array is not closed: the input may have been cut short')
    }
    return this.#pieces
  }

  /** Looks at a byte between records. Returns whether it is done with; else the next mode reads it again. */
  #readBetween(byte: number): boolean {
    if (this.#mode === 'start' && byte === BYTE_ORDER_MARK[this.#markBytes]) {
      this.#markBytes++
      return true
    }
    if (isSpace(byte)) {
      if (byte === NEWLINE) this.#line++
      return true
    }
    switch (this.#mode) {
      case 'start':
        this.#mode = byte === OPEN_BRACKET ? 'beforeElement' : 'line'
        return byte === OPEN_BRACKET
      case 'beforeElement':
        if (byte === CLOSE_BRACKET && !this.#isElementOwed) {
          this.#mode = 'finished'
          return true
        }
        if (byte === COMMA || byte === CLOSE_BRACKET || byte === CLOSE_BRACE) {
          this.#break('an element of the JSON array is missing')
        } else this.#beginElement(byte)
        return false
      case 'afterElement':
        this.#isElementOwed = byte === COMMA
        if (byte === COMMA) this.#mode = 'beforeElement'
        else if (byte === CLOSE_BRACKET) this.#mode = 'finished'
        else this.#break('a comma is missing between two elements of the JSON array')
        return true
      default:
        this.#break('something follows the end of the JSON array')
        return true
    }
  }

  #beginElement(byte: number): void {
    this.#mode = 'element'
    this.#elementKind = byte === OPEN_BRACE || byte === OPEN_BRACKET ? 'bracketed' : byte === QUOTE ? 'quoted' : 'bare'
    this.#depth = 0
    this.#isInString = false
    this.#isEscaped = false
  }

  #readLine(chunk: Uint8Array, at: number): number {
    const newline = chunk.indexOf(NEWLINE, at)
    this.#keep(chunk.subarray(at, newline === -1 ? chunk.length : newline))
    if (newline === -1) return chunk.length
    this.#finishRecord()
    this.#line++
    return newline + 1
  }

  #readElement(chunk: Uint8Array, start: number): number {
    let at = start
    while (at < chunk.length) {
      const byte = chunk[at]!
      if (this.#elementKind === 'bare') {
        if (byte === COMMA || byte === CLOSE_BRACKET || byte === CLOSE_BRACE || isSpace(byte)) break
        at++
      } else {
        at++
        if (this.#endsElement(byte)) break
      }
    }
    this.#keep(chunk.subarray(start, at))
    const isEnd = this.#elementKind === 'bare' ? at < chunk.length : this.#depth === 0 && !this.#isInString
    if (isEnd) {
      this.#mode = 'afterElement'
      this.#finishRecord()
    }
    return at
  }

  /** Follows strings and brackets; whether `byte` is the last of its element. */
  #endsElement(byte: number): boolean {
    if (this.#isInString) {
      if (this.#isEscaped) this.#isEscaped = false
      else if (byte === BACKSLASH) this.#isEscaped = true
      else if (byte === QUOTE) {
        this.#isInString = false
        return this.#depth === 0
      }
      return false
    }
    if (byte === QUOTE) this.#isInString = true
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) this.#depth++
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) return --this.#depth === 0
    return false
  }

  #keep(part: Uint8Array): void {
    this.#bytes += part.length
    if (this.#bytes > this.#recordBytesMax) this.#parts = []
    else if (part.length > 0) this.#parts.push(part)
  }

  #finishRecord(): void {
    const isTooLong = this.#bytes > this.#recordBytesMax
    const bytes = trim(this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts))
    this.#parts = []
    this.#bytes = 0
    if (isTooLong) this.#give(undefined, `longer than ${this.#recordBytesMax} bytes`)
    else if (bytes.length > 0) this.#give(bytes, undefined)
  }

  #break(problem: string): void {
    this.#mode = 'broken'
    this.#parts = []
    this.#give(undefined, problem)
  }

  #give(bytes: Uint8Array | undefined, problem: string | undefined): void {
    const ordinal = ++this.#ordinal
    const place = this.#mode === 'line' ? `line ${this.#line}` : `element ${ordinal}`
    this.#pieces.push({ ordinal, place, bytes, problem })
  }
}
