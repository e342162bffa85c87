/**
 * `GET /v1/kv/{bucket}`: one page of keys, or with `Accept: application/x-ndjson` the whole bucket as lines. A stream asks for
 * its next page only when the client has taken the one before, and stops when the client goes away. Every line is one key;
 * a stream that fails ends with a line `{"problem":...}` and a broken connection, never as if it were complete.
 */
import { SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { Bucket, ListedKey, ListOptions, ListPage } from '../../replication/requests.ts'
import { AnswerStream } from './answer-stream.ts'
import { encodeBase64Url } from './base64.ts'
import { type Exchange, unreadDetail } from './exchange.ts'
import type { Front } from './front.ts'
import { checkQuorum, findBucket } from './key-routes.ts'
import { errorOf, problemOfError } from './problem.ts'
import { parseQuery, type Query } from './query.ts'
import { acceptsLines } from './request-fields.ts'
import { listRoute } from './route-table.ts'
import { keyMember, pushReceipt, readMembers, valueBytesOf } from './stored-value.ts'

/** Keys of one page of a stream: fewer with values, since a page is in memory at once. */
const streamPageKeys = 1000
const streamPageValues = 64

function listedText(listed: ListedKey): string {
  return `{${keyMember(listed.key)}${listed.answer === undefined ? '' : readMembers(listed.answer)}}`
}

/** Bytes that a page holds in memory while it is written. */
function bytesOf(page: ListPage): number {
  return page.keys.reduce((sum, { key, answer }) => sum + key.length + (answer ? valueBytesOf(answer) : 0), 0)
}

/** Answers one list. @throws SunwiseError for the caller to answer with */
export function answerList(front: Front, exchange: Exchange, bucketSegment: string): void {
  const query = parseQuery(exchange.target, exchange.target.indexOf('?'), listRoute.query)
  const bucket = findBucket(front, bucketSegment)
  checkQuorum('r', query.r, bucket)
  if (acceptsLines(exchange.fields.accept)) {
    if (exchange.method === 'HEAD') exchange.answer(200, ['Content-Type', 'application/x-ndjson'], undefined)
    else streamKeys(front, exchange, bucket, query)
  } else answerPage(front, exchange, bucket, query)
}

function listOptionsOf(query: Readonly<Query>, limit: number, cursor: Uint8Array | undefined): ListOptions {
  return { prefix: query.prefix, cursor, limit, values: query.values, r: query.r, timeoutMs: query.timeoutMs }
}

function answerPage(front: Front, exchange: Exchange, bucket: Bucket, query: Readonly<Query>): void {
  const options = listOptionsOf(query, query.limit ?? Limits.listLimitDefault, query.cursor)
  front.coordinator.list(bucket, options, (error, page) => {
    try {
      if (page === undefined) {
        exchange.crash(error)
        return
      }
      if (!exchange.holdAnswer(bytesOf(page))) return exchange.failUnread()
      const headers = ['Content-Type', 'application/json']
      if (page.receipt !== undefined) pushReceipt(headers, page.receipt)
      const stream = new AnswerStream(exchange, 200, headers)
      let index = 0
      stream.write('{"keys":[')
      const go = (): void => {
        while (index < page.keys.length) {
          const comma = index === 0 ? '' : ','
          const text = comma + listedText(page.keys[index]!)
          index++
          if (!stream.write(text)) {
            stream.whenReady(go)
            return
          }
        }
        const cursor = page.cursor === undefined ? '' : `,"cursor":"${encodeBase64Url(page.cursor)}"`
        stream.write(`]${cursor},"complete":${page.cursor === undefined}}`)
        stream.end()
      }
      go()
    } catch (thrown) {
      exchange.crash(thrown)
    }
  })
}

function streamKeys(front: Front, exchange: Exchange, bucket: Bucket, query: Readonly<Query>): void {
  const stream = new AnswerStream(exchange, 200, ['Content-Type', 'application/x-ndjson'])
  const pageKeys = query.values ? streamPageValues : streamPageKeys
  let left = query.limit ?? Number.POSITIVE_INFINITY
  const nextPage = (cursor: Uint8Array | undefined): void => {
    const options = listOptionsOf(query, Math.min(pageKeys, left), cursor)
    front.coordinator.list(bucket, options, (error, page) => {
      try {
        // The page before has left, or is at most one part long.
        exchange.letAnswerGo()
        if (page === undefined || !exchange.holdAnswer(bytesOf(page))) {
          const coded = page === undefined ? errorOf(error) : new SunwiseError('OVERLOADED', unreadDetail)
          if (stream.started) stream.breakOff(`{"problem":${JSON.stringify(problemOfError(coded))}}\n`)
          else exchange.crash(coded)
          return
        }
        let index = 0
        const go = (): void => {
          while (index < page.keys.length) {
            const text = `${listedText(page.keys[index]!)}\n`
            index++
            if (!stream.write(text)) {
              stream.whenReady(go)
              return
            }
          }
          left -= page.keys.length
          if (page.cursor === undefined || left <= 0) stream.end()
          else {
            // What has gathered leaves before the next page is asked for: a slow page must not hold back the one before.
            stream.flush()
            stream.whenReady(() => nextPage(page.cursor))
          }
        }
        go()
      } catch (thrown) {
        exchange.crash(thrown)
      }
    })
  }
  nextPage(query.cursor)
}
