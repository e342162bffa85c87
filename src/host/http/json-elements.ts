/**
 * Cuts a JSON array, or lines of JSON, into its elements while it arrives, and checks each one's size, depth and number of
 * members before any parser sees it: `JSON.parse` recurses, builds what it is told to, and hashes integer-like names badly
 * (CVE-2026-21717). What one chunk brings is parsed at once, since a call of the parser costs as much as a small element; so a
 * body of 16 MiB never stops the thread.
 *
 *     [ {...} , {...} ]          array: elements are cut at the commas of depth 1
 *     {...} \n {...} \n          lines: elements are cut at line feeds; blank lines are skipped
 *
 * What it does not do: judge the inside of an element. `JSON.parse` does, and repeated member names, which it would resolve
 * silently, show as fewer names than were counted here.
 */
import { isAscii, isUtf8 } from 'node:buffer'
import { SunwiseError } from '../../base/errors.ts'
import { GatheredBytes } from './gathered-bytes.ts'

/** Limits of one element. */
export type JsonLimits = {
  readonly bytesMax: number
  /** Nesting of arrays and objects. */
  readonly depthMax: number
  /** Members of objects and items of arrays, at all depths together. */
  readonly membersMax: number
}

function refuse(detail: string): SunwiseError {
  return new SunwiseError('BAD_REQUEST', detail)
}

/** Follows JSON text byte by byte: strings, depth, members. */
class JsonScan {
  depth = 0
  /** Colons outside strings at depth 1: the members of an element that is an object. */
  topMembers = 0
  /** Colons and commas outside strings. */
  members = 0
  #inString = false
  #escaped = false

  get inString(): boolean {
    return this.#inString
  }

  /**
   * Steps over the characters of a string that mean nothing, if it is inside one: first place from `at` on where `step` is needed,
   * or the end of `bytes`. A line feed stops it, too, though no string may hold one.
   */
  skip(bytes: Uint8Array, at: number): number {
    if (!this.#inString || this.#escaped) return at
    let next = at
    for (; next < bytes.length; next++) {
      const byte = bytes[next]!
      if (byte === 0x22 || byte === 0x5c || byte === 0x0a) break
    }
    return next
  }

  reset(): void {
    this.depth = 0
    this.topMembers = 0
    this.members = 0
    this.#inString = false
    this.#escaped = false
  }

  step(byte: number): void {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false
      else if (byte === 0x5c) this.#escaped = true
      else if (byte === 0x22) this.#inString = false
      return
    }
    switch (byte) {
      case 0x22:
        this.#inString = true
        break
      case 0x7b:
      case 0x5b:
        this.depth++
        break
      case 0x7d:
      case 0x5d:
        this.depth--
        break
      case 0x3a:
        this.members++
        if (this.depth === 1) this.topMembers++
        break
      case 0x2c:
        this.members++
    }
  }
}

/**
 * The value of one JSON element.
 * @throws SunwiseError `BAD_REQUEST` for text that is not UTF-8 or not JSON, and for objects with a name given twice
 */
export function parseElement(bytes: Buffer, topMembers: number): unknown {
  if (!isUtf8(bytes)) throw refuse('The JSON is not valid UTF-8')
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch {
    throw refuse('The JSON is malformed')
  }
  checkNames(value, topMembers)
  return value
}

function checkNames(value: unknown, topMembers: number): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return
  let names = 0
  for (const _ in value) names++
  if (names !== topMembers) throw refuse('The JSON object gives a name twice')
}

/**
 * The value of a whole JSON text that is one element.
 * @throws SunwiseError `BAD_REQUEST`
 */
export function parseJson(bytes: Buffer, limits: JsonLimits): unknown {
  const scan = new JsonScan()
  for (let index = 0; ; index++) {
    index = scan.skip(bytes, index)
    if (index >= bytes.length) break
    scan.step(bytes[index]!)
    if (scan.depth > limits.depthMax) throw refuse(`The JSON is nested deeper than ${limits.depthMax}`)
    if (scan.members > limits.membersMax) throw refuse('The JSON has too many members')
  }
  return parseElement(bytes, scan.topMembers)
}

/** The values of JSON elements with commas between them; undefined where that is no JSON. */
function parseList(bytes: Buffer): readonly unknown[] | undefined {
  const text = isAscii(bytes) ? bytes.toString('latin1') : isUtf8(bytes) ? bytes.toString('utf8') : undefined
  if (text === undefined) return undefined
  try {
    return JSON.parse(`[${text}]`) as readonly unknown[]
  } catch {
    return undefined
  }
}

/** What the splitter expects next. */
type State = 'start' | 'firstOrEnd' | 'element' | 'inside' | 'end'

/** Cuts one body. Feed it chunks, then call `end`. */
export class JsonElements {
  readonly #lines: boolean
  readonly #limits: JsonLimits
  readonly #take: (element: unknown) => SunwiseError | undefined
  readonly #scan = new JsonScan()
  #state: State
  /** The beginning of an element that earlier chunks held. */
  readonly #carried = new GatheredBytes()
  /** Whole elements of the present chunk that wait to be parsed, by their members; they stand from one place to another. */
  readonly #run: number[] = []
  #runFrom = 0
  #runTo = 0

  /** `take` gets each parsed element in order and may return an error to stop. */
  constructor(form: 'array' | 'lines', limits: JsonLimits, take: (element: unknown) => SunwiseError | undefined) {
    this.#lines = form === 'lines'
    this.#limits = limits
    this.#take = take
    this.#state = this.#lines ? 'element' : 'start'
  }

  /** Reads on. Returns the error of the first element that is refused; nothing may be fed after that. */
  feed(chunk: Buffer): SunwiseError | undefined {
    let from = 0
    for (let at = 0; at < chunk.length; at++) {
      if (this.#state === 'inside') {
        at = this.#scan.skip(chunk, at)
        if (at === chunk.length) break
        const byte = chunk[at]!
        const cut = this.#lines
          ? byte === 0x0a
          : this.#scan.depth === 0 && !this.#scan.inString && (byte === 0x2c || byte === 0x5d)
        if (cut) {
          const error = this.#cut(chunk, from, at)
          if (error !== undefined) return error
          this.#state = this.#lines || byte === 0x2c ? 'element' : 'end'
          continue
        }
        this.#scan.step(byte)
        if (this.#scan.depth > this.#limits.depthMax) {
          return this.#parseRun(chunk) ?? refuse(`The JSON is nested deeper than ${this.#limits.depthMax}`)
        }
        if (this.#scan.members > this.#limits.membersMax) {
          return this.#parseRun(chunk) ?? refuse('An element of the JSON has too many members')
        }
        continue
      }
      const byte = chunk[at]!
      if (byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d) continue
      switch (this.#state) {
        case 'start':
          if (byte !== 0x5b) return refuse('The JSON is not an array')
          this.#state = 'firstOrEnd'
          break
        case 'end':
          return this.#parseRun(chunk) ?? refuse('There is text after the JSON array')
        default:
          if (byte === 0x5d && this.#state === 'firstOrEnd') {
            this.#state = 'end'
            break
          }
          if (byte === 0x5d || byte === 0x2c) {
            return this.#parseRun(chunk) ?? refuse('The JSON array has an empty place')
          }
          this.#state = 'inside'
          this.#scan.reset()
          this.#scan.step(byte)
          from = at
      }
    }
    const error = this.#parseRun(chunk)
    if (error !== undefined) return error
    if (this.#state === 'inside') {
      this.#carried.add(chunk.subarray(from))
      if (this.#carried.length > this.#limits.bytesMax) return this.#tooLong()
    }
    return undefined
  }

  /** The body is complete. Returns what is wrong with its end. */
  end(): SunwiseError | undefined {
    if (this.#lines) {
      return this.#state === 'inside' ? this.#element(Buffer.alloc(0), 0, 0, this.#scan.topMembers) : undefined
    }
    return this.#state === 'end' ? undefined : refuse('The JSON array does not end')
  }

  /** An element ends at `to`. In an array it waits for those behind it; a line, or one that began in an earlier chunk, does not. */
  #cut(chunk: Buffer, from: number, to: number): SunwiseError | undefined {
    const { topMembers } = this.#scan
    if (this.#lines || this.#carried.length > 0) return this.#element(chunk, from, to, topMembers)
    if (to - from > this.#limits.bytesMax) return this.#parseRun(chunk) ?? this.#tooLong()
    if (this.#run.length === 0) this.#runFrom = from
    this.#run.push(topMembers)
    this.#runTo = to
    return undefined
  }

  /**
   * Parses what waits, commas and all. A text that is JSON was cut where the parser cuts it; one that is not is parsed piece by
   * piece, to find the element to blame.
   */
  #parseRun(chunk: Buffer): SunwiseError | undefined {
    const run = this.#run
    if (run.length === 0) return undefined
    const bytes = chunk.subarray(this.#runFrom, this.#runTo)
    const values = parseList(bytes)
    try {
      if (values === undefined || values.length !== run.length) return this.#parseEach(bytes)
      for (let index = 0; index < run.length; index++) {
        checkNames(values[index], run[index]!)
        const error = this.#take(values[index])
        if (error !== undefined) return error
      }
    } catch (thrown) {
      if (thrown instanceof SunwiseError) return thrown
      throw thrown
    } finally {
      run.length = 0
    }
    return undefined
  }

  #parseEach(bytes: Buffer): SunwiseError | undefined {
    const scan = new JsonScan()
    let from = 0
    for (let at = 0; at <= bytes.length; at++) {
      if (at === bytes.length || (bytes[at] === 0x2c && scan.depth === 0 && !scan.inString)) {
        const error = this.#element(bytes, from, at, scan.topMembers)
        if (error !== undefined) return error
        from = at + 1
        scan.reset()
      } else scan.step(bytes[at]!)
    }
    return undefined
  }

  #tooLong(): SunwiseError {
    return new SunwiseError('REQUEST_TOO_LARGE', `An element of the JSON is larger than ${this.#limits.bytesMax} bytes`)
  }

  #element(chunk: Buffer, from: number, to: number, topMembers: number): SunwiseError | undefined {
    let bytes = chunk.subarray(from, to)
    if (this.#carried.length > 0) {
      this.#carried.add(bytes)
      bytes = this.#carried.take()
    }
    if (bytes.length > this.#limits.bytesMax) return this.#tooLong()
    try {
      return this.#take(parseElement(bytes, topMembers))
    } catch (thrown) {
      if (thrown instanceof SunwiseError) return thrown
      throw thrown
    }
  }
}
