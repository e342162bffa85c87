/** `/healthz`, `/readyz`, `/metrics`, `/version`, `/v1/limits` and `/openapi.json`: what the node says about itself. */
import { Limits } from '../../config.ts'
import type { Exchange } from './exchange.ts'
import type { Front } from './front.ts'
import { openApiDocument } from './openapi.ts'
import { parseQuery } from './query.ts'

/** Answers with the reasons why the node is not well: 200 where there are none. Warnings change nothing but the text. */
export function answerHealth(exchange: Exchange, reasons: readonly string[], warnings: readonly string[] = []): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  const ok = reasons.length === 0
  exchange.answerJson(
    ok ? 200 : 503,
    ok ? [] : ['Retry-After', '1'],
    JSON.stringify({ ok, reasons, ...(warnings.length > 0 ? { warnings } : {}) }),
  )
}

/** Answers with the text of all metrics. */
export function answerMetrics(exchange: Exchange, metrics: string): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  exchange.answer(200, ['Content-Type', 'text/plain; version=0.0.4; charset=utf-8'], Buffer.from(metrics))
}

/** Answers with a document that never changes while the node runs. */
export function answerDocument(exchange: Exchange, document: string): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  exchange.answerJson(200, [], document)
}

/** The document of `/version`. */
export function versionDocument(version: string, nodeId: string): string {
  return JSON.stringify({ name: 'sunwise', version, api: 'v1', nodeId })
}

/** The document of `/v1/limits`: bytes, milliseconds and counts. */
export function limitsDocument(front: Front): string {
  return JSON.stringify({
    keyBytesMax: Limits.keyBytesMax,
    valueBytesMax: front.limits.valueBytesMax,
    contentTypeBytesMax: Limits.contentTypeBytesMax,
    contextBytesMax: Limits.contextBytesMax,
    siblingsMax: Limits.siblingsMax,
    ttlMsMax: Limits.ttlMsMax,
    timeoutMsDefault: Limits.timeoutMsDefault,
    timeoutMsMax: Limits.timeoutMsMax,
    batchOperationsMax: Limits.batchOperationsMax,
    batchBytesMax: Limits.batchBytesMax,
    responseBytesMax: Limits.responseBytesMax,
    listLimitDefault: Limits.listLimitDefault,
    listLimitMax: Limits.listLimitMax,
    bucketsMax: Limits.bucketsMax,
    bucketNameBytesMax: Limits.bucketNameBytesMax,
  })
}

/** The document of `/openapi.json`. */
export function openApiText(version: string): string {
  return JSON.stringify(openApiDocument(version))
}
