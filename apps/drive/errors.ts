/**
 * What the drive refuses, each with a stable code. web/routes/drive.ts maps codes to HTTP statuses;
 * failures of the store itself stay `KvError` (kv/errors.ts).
 *
 * | code               | meaning                                                                 |
 * | ------------------ | ----------------------------------------------------------------------- |
 * | `not_found`        | no such item, folder or upload, or it is in the trash                   |
 * | `name_exists`      | the folder already holds something of that name                         |
 * | `into_itself`      | a folder cannot move into itself or below itself                        |
 * | `invalid_name`     | see names.ts for what a name may be                                     |
 * | `invalid_request`  | an argument is not what the call expects                                |
 * | `not_a_folder`     | the call needs a folder and the item is a file                          |
 * | `not_a_file`       | the call needs a file and the item is a folder                          |
 * | `too_deep`         | folders nest DEPTH_MAX levels at most                                   |
 * | `quota_exceeded`   | the user's files would outgrow `drive.quota_bytes`                      |
 * | `file_too_large`   | the file would outgrow `drive.file_max_bytes`                           |
 * | `drive_full`       | a folder or the trash is at the limit of a row: too many items          |
 * | `too_many_uploads` | UPLOADS_MAX unfinished uploads are waiting                              |
 * | `upload_gone`      | the upload expired or was cancelled; begin again                        |
 * | `upload_conflict`  | another request writes the same upload, or the offset is not current    |
 * | `upload_aborted`   | the client went away before its last byte; nothing was stored           |
 * | `changed`          | the drive kept changing under the call; nothing was done, try again     |
 * | `damaged`          | a part of the file cannot be read; an operator must look                |
 */
export type DriveErrorCode =
  | "not_found"
  | "name_exists"
  | "into_itself"
  | "invalid_name"
  | "invalid_request"
  | "not_a_folder"
  | "not_a_file"
  | "too_deep"
  | "quota_exceeded"
  | "file_too_large"
  | "drive_full"
  | "too_many_uploads"
  | "upload_gone"
  | "upload_conflict"
  | "upload_aborted"
  | "changed"
  | "damaged";

export class DriveError extends Error {
  override readonly name = "DriveError";
  constructor(readonly code: DriveErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options);
  }
}
