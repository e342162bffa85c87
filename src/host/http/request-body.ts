/**
 * Request bodies: counted as they arrive, refused at their limit before they are read, and dropped without a trace when the
 * client goes away half-way. A body of one chunk is handed on as it came; a longer one is copied once into its place.
 */
import { type ErrorCode, SunwiseError } from '../../base/errors.ts'
import type { Exchange } from './exchange.ts'
import { GatheredBytes } from './gathered-bytes.ts'

/** What to do with a body. Exactly one of `end` and `fault` is called, or neither if the client goes away. */
export type BodySink = {
  /** One chunk, fresh and owned by the receiver. Returns an error to stop reading. */
  chunk(bytes: Buffer): SunwiseError | undefined
  end(): void
  /** The body was refused; the error is not sent yet. */
  fault(error: SunwiseError): void
}

/** Bytes that a Content-Length announces; -1 where the length is not known. */
function announcedBytesOf(exchange: Exchange): number {
  const length = exchange.fields.contentLength
  return length === undefined || exchange.fields.transferEncoding !== undefined ? -1 : Number(length)
}

/** @throws SunwiseError `UNSUPPORTED_MEDIA_TYPE` where the body is encoded: values are stored as they come. */
export function checkBodyEncoding(exchange: Exchange): void {
  const encoding = exchange.fields.contentEncoding
  if (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity') {
    throw new SunwiseError('UNSUPPORTED_MEDIA_TYPE', 'Content-Encoding is not supported: send the body as it is')
  }
  if (exchange.fields.contentRange !== undefined) {
    throw new SunwiseError('BAD_REQUEST', 'Content-Range is not supported: a value is written whole')
  }
}

/**
 * Reads the body of an exchange into a sink. Above `bytesMax` it is refused with `tooLarge`; where the server holds too many
 * body bytes already, with OVERLOADED.
 */
export function readBody(exchange: Exchange, bytesMax: number, tooLarge: ErrorCode, sink: BodySink): void {
  const { request } = exchange
  const announced = announcedBytesOf(exchange)
  const refuseSize = (): SunwiseError =>
    new SunwiseError(tooLarge, `The body is larger than ${bytesMax} bytes`, { extra: { bytesMax } })
  const refuseLoad = (): SunwiseError =>
    new SunwiseError('OVERLOADED', 'The node holds too many request bodies at the moment', { outcome: 'none' })
  if (!exchange.hasBody) {
    sink.end()
    return
  }
  if (announced > bytesMax) {
    sink.fault(refuseSize())
    return
  }
  if (announced > 0 && !exchange.reserveBody(announced)) {
    sink.fault(refuseLoad())
    return
  }
  let isEnded = false
  /** For bodies that are not read to their end: the listeners of others go with their request. */
  const detach = (): void => {
    isEnded = true
    request.removeListener('data', onData)
    request.removeListener('end', onEnd)
    request.removeListener('error', onGone)
    request.removeListener('close', onGone)
    request.on('error', ignore)
  }
  const stop = (error: SunwiseError): void => {
    detach()
    sink.fault(error)
  }
  const onData = (chunk: Buffer): void => {
    if (exchange.over) {
      detach()
      return
    }
    exchange.bytesIn += chunk.length
    if (exchange.bytesIn > bytesMax) {
      stop(refuseSize())
      return
    }
    if (announced < 0 && !exchange.reserveBody(chunk.length)) {
      stop(refuseLoad())
      return
    }
    try {
      const error = sink.chunk(chunk)
      if (error !== undefined) stop(error)
    } catch (thrown) {
      detach()
      exchange.crash(thrown)
    }
  }
  const onEnd = (): void => {
    isEnded = true
    // The parser may find the message's end malformed after it delivered the body: it is answered then, and not applied.
    if (exchange.over) return
    exchange.bodyTaken = true
    try {
      sink.end()
    } catch (thrown) {
      exchange.crash(thrown)
    }
  }
  const onGone = (): void => {
    // A connection that fails after its body was taken is found out when the answer is written.
    if (isEnded) return
    detach()
    exchange.abandon()
  }
  request.on('data', onData)
  request.on('end', onEnd)
  request.on('error', onGone)
  request.on('close', onGone)
  exchange.allowBody()
}

/** An error that nobody waits for any more. */
function ignore(): void {}

/** Collects a whole body and hands it on, fresh and owned by the receiver. Refusals are answered here. */
export function collectBody(
  exchange: Exchange,
  bytesMax: number,
  tooLarge: ErrorCode,
  take: (body: Buffer) => void,
): void {
  const body = new GatheredBytes(Math.max(0, announcedBytesOf(exchange)))
  readBody(exchange, bytesMax, tooLarge, {
    chunk(bytes) {
      body.add(bytes)
      return undefined
    },
    end: () => take(body.take()),
    fault: (error) => exchange.fail(error),
  })
}
