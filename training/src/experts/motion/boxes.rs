//! Upright boxes in pixels: left, top, right, bottom.
//!
//! Plain arithmetic; nothing is seen or followed here.

/// Left, top, right, bottom.
pub type Xyxy = [f32; 4];

/// The box, moved.
pub fn moved([x1, y1, x2, y2]: Xyxy, [x, y]: [f32; 2]) -> Xyxy {
    [x1 + x, y1 + y, x2 + x, y2 + y]
}

/// Its middle.
pub fn centre([x1, y1, x2, y2]: Xyxy) -> [f32; 2] {
    [(x1 + x2) / 2.0, (y1 + y2) / 2.0]
}

/// The way from the middle of one to that of the other.
pub fn way(from: Xyxy, to: Xyxy) -> [f32; 2] {
    let ([a, b], [c, d]) = (centre(from), centre(to));
    [c - a, d - b]
}

/// The shorter side.
pub fn narrow([x1, y1, x2, y2]: Xyxy) -> f32 {
    (x2 - x1).min(y2 - y1)
}

/// Its area; none where it is turned inside out.
pub fn area([x1, y1, x2, y2]: Xyxy) -> f32 {
    (x2 - x1).max(0.0) * (y2 - y1).max(0.0)
}

/// The box around both.
pub fn union(a: Xyxy, b: Xyxy) -> Xyxy {
    [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]
}

/// What lies inside a picture of this width and height.
pub fn inside(b: Xyxy, [width, height]: [f32; 2]) -> Xyxy {
    [b[0].max(0.0), b[1].max(0.0), b[2].min(width), b[3].min(height)]
}
