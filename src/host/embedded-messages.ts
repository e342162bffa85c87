/** Messages between an application's thread and the node thread of its embedded store. */
import type { Config } from '../config.ts'
import type { AdminRequest, ErrorMessage, ThreadSeed, ToThread } from './messages.ts'

export type EmbeddedData = { readonly config: Config }

export type FromNode =
  | { readonly type: 'started'; readonly seed: ThreadSeed; readonly nodeId: string; readonly recoveredRecords: number }
  | { readonly type: 'startFailed'; readonly error: ErrorMessage }
  | { readonly type: 'fatal'; readonly error: ErrorMessage }
  | { readonly type: 'stopped'; readonly error: ErrorMessage | undefined }
  | { readonly type: 'log'; readonly line: string }
  | ToThread

export type ToNode =
  | { readonly type: 'admin'; readonly id: number; readonly request: AdminRequest }
  | { readonly type: 'stop' }
